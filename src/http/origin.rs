//! Decides which pages may send requests. A browser sends the page's address in the `Origin`
//! header. Without this check, any page that an operator opens could force releases on the
//! operator's own machine.

use super::response::Refusal;

/// Refuses a request that a browser sends for a page of another site. `host` is the `Host` header.
/// `configured` is the page's address behind a proxy that replaces this header.
pub fn check(
    origin: Option<&str>,
    host: Option<&str>,
    configured: Option<&str>,
) -> Result<(), Refusal> {
    let Some(origin) = origin else { return Ok(()) };
    let is_own = origin.split_once("://").is_some_and(|(scheme, authority)| {
        let is_host = host.is_some_and(|host| is_same(scheme, authority, host));
        let is_configured =
            configured.and_then(|url| url.split_once("://")).is_some_and(|(own_scheme, own)| {
                scheme.eq_ignore_ascii_case(own_scheme) && is_same(scheme, authority, own)
            });
        is_host || is_configured
    });
    if is_own {
        return Ok(());
    }
    Err(Refusal::InvalidRequest(format!(
        "Origin: a page of another site may not ask this; if {origin:?} is this service behind a proxy, let the \
         proxy pass on the Host header of the browser, or set SESSION_LOCK_ORIGIN to that address"
    )))
}

/// Whether two authorities are the same under this scheme. Letter case does not matter, and the
/// scheme's default port may be left out.
fn is_same(scheme: &str, one: &str, other: &str) -> bool {
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let plain = |authority: &str| {
        let authority = authority.trim_end_matches('/').to_ascii_lowercase();
        authority.strip_suffix(default_port).map_or(authority.clone(), str::to_owned)
    };
    plain(one) == plain(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_services_own_page_may_ask() {
        for (origin, host, configured, is_allowed) in [
            (None, None, None, true),
            (Some("http://localhost:7099"), Some("localhost:7099"), None, true),
            (Some("http://LOCALHOST:7099"), Some("localhost:7099"), None, true),
            (Some("https://lock.example"), Some("lock.example:443"), None, true),
            (Some("http://lock.example:80"), Some("lock.example"), None, true),
            (Some("https://lock.example:80"), Some("lock.example"), None, false),
            (Some("https://lock.example"), Some("127.0.0.1:7099"), None, false),
            (Some("https://lock.example"), Some("x"), Some("https://Lock.example/"), true),
            (Some("http://lock.example"), Some("x"), Some("https://lock.example"), false),
            (Some("null"), Some("null"), None, false),
            (Some("localhost:7099"), Some("localhost:7099"), None, false),
            (Some("http://localhost:7099"), None, None, false),
        ] {
            let checked = check(origin, host, configured);
            assert_eq!(checked.is_ok(), is_allowed, "{origin:?} {host:?} {configured:?}");
        }
    }
}
