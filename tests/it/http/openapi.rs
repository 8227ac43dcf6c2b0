//! The description of the API.

use serde_json::Value;

use crate::world::{World, tests};

tests![the_interface_is_described];

fn the_interface_is_described(world: &World) {
    let described = world.service.get("/openapi.json");
    assert_eq!(described.status, 200);
    let Value::Object(paths) = &described.json["paths"] else { panic!("{:?}", described.json) };
    let mut paths: Vec<_> = paths.keys().map(String::as_str).collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "/",
            "/healthz",
            "/metrics",
            "/openapi.json",
            "/readyz",
            "/v1/acquire",
            "/v1/commit",
            "/v1/history",
            "/v1/locks",
            "/v1/locks/{id_device}/{id_prospect}",
            "/v1/release",
            "/v1/renew",
        ]
    );
}
