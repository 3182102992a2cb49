//! Holds requests against Coolify's published description of its API. Where the description is known to be wrong it is
//! mended first; each mistake is named with how it is known.

use jsonschema::validator_for;
use meeboter::coolify_emulator::RecordedRequest;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const DESCRIPTION: &str = include_str!("openapi.json");

/// Fields that routes take though the description leaves them out: (method, path, pointer to the fields, field, type).
const MISSING: [(&str, &str, &str, &str, &str); 2] = [
    // Items of the list are what the route for one variable takes.
    ("patch", "/applications/{uuid}/envs/bulk", "/properties/data/items/properties", "is_runtime", "boolean"),
    (
        "patch",
        "/applications/{uuid}/envs/bulk",
        "/properties/data/items/properties",
        "is_buildtime",
        "boolean",
    ),
];
/// Fields that are said to be needed though one of two suffices: (method, path, field).
const NOT_NEEDED: [(&str, &str, &str); 1] = [
    // "You need to provide at least one of environment_name or environment_uuid", says the description itself.
    ("post", "/applications/dockerimage", "environment_uuid"),
];
/// Fields that the description lists though the route refuses them with 422: (method, path, field).
const REFUSED: [(&str, &str, &str); 6] = [
    ("patch", "/applications/{uuid}", "project_uuid"),
    ("patch", "/applications/{uuid}", "server_uuid"),
    ("patch", "/applications/{uuid}", "environment_name"),
    ("patch", "/applications/{uuid}", "destination_uuid"),
    ("patch", "/applications/{uuid}", "github_app_uuid"),
    ("patch", "/applications/{uuid}", "dockerfile"),
];

/// Fails where a request is not as described.
pub(super) fn check(requests: &[RecordedRequest]) {
    let description: Value = serde_json::from_str(DESCRIPTION).unwrap();
    for request in requests {
        if let Err(why) = check_one(&description, request) {
            panic!(
                "{} {} is not as Coolify describes it: {why}\n{}",
                request.method, request.path, request.body
            );
        }
    }
}

fn check_one(description: &Value, request: &RecordedRequest) -> Result<(), String> {
    let method = request.method.to_lowercase();
    let (path, operation) = operation(description, &method, &request.path).ok_or("there is no such route")?;
    check_query(operation, request)?;
    let schema = operation.pointer("/requestBody/content/application~1json/schema");
    match (schema, request.body.is_null()) {
        (None, true) => Ok(()),
        (None, false) => Err("it takes no body".to_owned()),
        (Some(_), true) => Err("it takes a body".to_owned()),
        (Some(schema), false) => check_body(&method, path, schema.clone(), &request.body),
    }
}

/// The route of a path; one without a placeholder comes before one with.
fn operation<'a>(description: &'a Value, method: &str, path: &str) -> Option<(&'a str, &'a Value)> {
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |template: &&String| {
        let wanted: Vec<&str> = template.split('/').collect();
        wanted.len() == parts.len()
            && wanted.iter().zip(&parts).all(|(wanted, part)| wanted.starts_with('{') || wanted == part)
    };
    let paths = description["paths"].as_object()?;
    let template = paths.keys().filter(fits).min_by_key(|template| template.matches('{').count())?;
    Some((template, paths[template].get(method)?))
}

fn check_query(operation: &Value, request: &RecordedRequest) -> Result<(), String> {
    let described = operation["parameters"].as_array().cloned().unwrap_or_default();
    for (name, value) in &request.query {
        let parameter = described.iter().find(|known| known["name"] == **name && known["in"] == "query");
        let parameter = parameter.ok_or(format!("it takes no parameter {name}"))?;
        let fits = match parameter["schema"]["type"].as_str() {
            Some("integer") => value.parse::<i64>().is_ok(),
            Some("boolean") => matches!(value.as_str(), "true" | "false"),
            _ => true,
        };
        if !fits {
            return Err(format!("{name} may not be {value}"));
        }
    }
    Ok(())
}

fn check_body(method: &str, path: &str, mut schema: Value, body: &Value) -> Result<(), String> {
    for (_, _, pointer, field, kind) in MISSING.iter().filter(|known| (known.0, known.1) == (method, path)) {
        schema.pointer_mut(pointer).unwrap()[field] = json!({ "type": kind });
    }
    let dropped: BTreeSet<&str> =
        NOT_NEEDED.iter().filter(|known| (known.0, known.1) == (method, path)).map(|known| known.2).collect();
    if let Some(needed) = schema.get_mut("required").and_then(Value::as_array_mut) {
        needed.retain(|field| !dropped.contains(field.as_str().unwrap_or_default()));
    }
    for (_, _, field) in REFUSED.iter().filter(|known| (known.0, known.1) == (method, path)) {
        schema["properties"].as_object_mut().unwrap().remove(*field);
    }
    close(&mut schema);
    let validator = validator_for(&schema).map_err(|error| error.to_string())?;
    let errors: Vec<String> = validator.iter_errors(body).map(|error| error.to_string()).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}

/// Lets nothing in that is not described: Coolify refuses it.
fn close(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    if fields.contains_key("properties") {
        fields.insert("additionalProperties".to_owned(), json!(false));
    }
    fields.values_mut().for_each(close);
}

#[test]
fn a_request_that_is_not_described_is_found() {
    let description: Value = serde_json::from_str(DESCRIPTION).unwrap();
    let request = |method: &str, path: &str, query: &[(&str, &str)], body: Value| RecordedRequest {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body,
        status: 200,
        at: std::time::Duration::ZERO,
    };
    let good = request("PATCH", "/applications/x", &[], json!({ "limits_memory": "512m" }));
    assert_eq!(check_one(&description, &good), Ok(()));
    for bad in [
        request("PATCH", "/applications/x", &[], json!({ "limits_memory": 512 })),
        request("PATCH", "/applications/x", &[], json!({ "server_uuid": "s" })),
        request("PATCH", "/applications/x", &[], json!({ "unknown": true })),
        request("PATCH", "/applications/x", &[], Value::Null),
        request("POST", "/applications/dockerimage", &[], json!({ "name": "x" })),
        request("PATCH", "/applications/x/envs/bulk", &[], json!({ "data": [{ "is_build_time": true }] })),
        request("GET", "/applications/x/logs", &[("lines", "many")], Value::Null),
        request("GET", "/applications", &[("tags", "x")], Value::Null),
        request("POST", "/applications/x/halt", &[], Value::Null),
    ] {
        assert!(check_one(&description, &bad).is_err(), "{bad:?}");
    }
}

/// The list of mistakes is no longer than it has to be: each is one.
#[test]
fn the_known_mistakes_are_in_the_description() {
    let description: Value = serde_json::from_str(DESCRIPTION).unwrap();
    let schema = |method: &str, path: &str| {
        let (_, operation) = operation(&description, method, path).unwrap();
        operation.pointer("/requestBody/content/application~1json/schema").unwrap().clone()
    };
    for (method, path, pointer, field, _) in MISSING {
        assert!(schema(method, path).pointer(pointer).unwrap().get(field).is_none(), "{path} {field}");
    }
    for (method, path, field) in NOT_NEEDED {
        assert!(
            schema(method, path)["required"].as_array().unwrap().contains(&json!(field)),
            "{path} {field}"
        );
    }
    for (method, path, field) in REFUSED {
        assert!(schema(method, path)["properties"].get(field).is_some(), "{path} {field}");
    }
}
