//! Bodies as JSON: bounded, and refused with the name of the field that is wrong.

use super::caller::state;
use super::error::ApiError;
use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::web::Payload;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use std::fmt;
use std::marker::PhantomData;

/// Reads a body: 413 where it is too large, 400 where it is no JSON, 422 where a field is unknown or of a wrong type.
pub async fn body<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: Payload,
) -> Result<(T, Vec<u8>), ApiError> {
    let limit = state(request)?.settings.server.body_max_bytes;
    let bytes = match payload.to_bytes_limited(limit).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            let message = format!("The body could not be read: {error}.");
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "unreadable_body", message));
        }
        Err(_) => {
            let message = format!("The body is larger than {limit} bytes.");
            let error = ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message);
            return Err(error.with_details(json!({ "maxBytes": limit })));
        }
    };
    Ok((parse(&bytes)?, bytes.to_vec()))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", format!("The body is not JSON: {error}."))
    })?;
    let object: Result<Object<T>, _> = serde_path_to_error::deserialize(value);
    object.map(|Object(body)| body).map_err(|error| {
        let path = error.path().to_string();
        let words = error.into_inner().to_string();
        let unknown = words.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
        let missing = words.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        let twice = words.strip_prefix("duplicate field `").and_then(|rest| rest.split('`').next());
        let field = match (path.as_str(), unknown.or(missing).or(twice)) {
            (".", None) => "body".to_owned(),
            (".", Some(name)) => name.to_owned(),
            // The path of an unknown field ends with it; that of another one with what misses it or has it twice.
            (path, Some(name)) if path.ends_with(name) && unknown.is_some() => path.to_owned(),
            (path, Some(name)) => format!("{path}.{name}"),
            (path, None) => path.to_owned(),
        };
        ApiError::field(&field, format!("{field}: {words}."))
    })
}

/// What is written as an object, and never as a list of its fields, which serde takes for a struct too.
#[derive(Debug, Default)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        inner: Object<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        count: u32,
    }

    #[test]
    fn the_field_is_named() {
        let field = |text: &str| {
            let error = parse::<Outer>(text.as_bytes()).expect_err("refused");
            error.to_string().split(':').next().unwrap_or_default().to_owned()
        };
        assert_eq!(field(r#"{"inner":{"count":"x"}}"#), "inner.count");
        assert_eq!(field(r#"{"inner":{"count":1,"cuont":2}}"#), "inner.cuont");
        assert_eq!(field(r#"{"inner":{"count":1},"other":2}"#), "other");
        assert_eq!(field(r#"{"inner":{}}"#), "inner.count");
        assert_eq!(field(r"{}"), "inner");
        assert_eq!(field(r#"{"inner":[1]}"#), "inner");
        assert_eq!(field(r#"[{"count":1}]"#), "body");
        assert_eq!(field("{"), "The body is not JSON");
    }
}
