//! One address with the methods that it takes: the others are refused with their names.

use super::error::ApiError;
use actix_web::dev::HttpServiceFactory;
use actix_web::http::Method;
use actix_web::{FromRequest, Handler, Resource, Responder, web};

/// See the module.
pub(super) struct Address {
    resource: Resource,
    methods: Vec<Method>,
}

/// The address of a path.
pub(super) fn at(path: &str) -> Address {
    Address { resource: web::resource(path), methods: Vec::new() }
}

macro_rules! methods {
    ($($name:ident: $method:ident),*) => {$(
        /// Has requests of this method handled.
        pub(super) fn $name<F, Args>(self, handler: F) -> Self
        where
            F: Handler<Args>,
            Args: FromRequest + 'static,
            F::Output: Responder + 'static,
        {
            let Self { resource, mut methods } = self;
            methods.push(Method::$method);
            Self { resource: resource.route(web::$name().to(handler)), methods }
        }
    )*};
}

impl Address {
    methods!(get: GET, post: POST, patch: PATCH, delete: DELETE);

    /// Has requests of all other methods refused.
    pub(super) fn or_refused(self) -> impl HttpServiceFactory {
        let Self { resource, methods } = self;
        let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
        let allowed = names.join(", ");
        resource.default_service(web::to(move || {
            let refused = ApiError::method_not_allowed(&allowed);
            async move { Err::<String, _>(refused) }
        }))
    }
}
