//! Decides which pages may send requests. A browser sends the page's address in the `Origin`
//! header. Without this check, any page that an operator opens could force releases on the
//! operator's own machine.

use url::Url;

use super::response::Refusal;

/// Refuses a request that a browser sends for a page of another site. `host` is the `Host` header.
/// `configured` is the page's address behind a proxy that replaces this header.
pub fn check(
    origin: Option<&str>,
    host: Option<&str>,
    configured: Option<&str>,
) -> Result<(), Refusal> {
    let Some(origin) = origin else { return Ok(()) };
    let is_own = Url::parse(origin).is_ok_and(|page| {
        let own = host.map(|host| format!("{}://{host}", page.scheme()));
        let urls = [own.as_deref(), configured].into_iter().flatten();
        urls.filter_map(|url| Url::parse(url).ok()).any(|url| url.origin() == page.origin())
    });
    if is_own {
        return Ok(());
    }
    Err(Refusal::InvalidRequest(format!(
        "Origin: a page of another site may not ask this; if {origin:?} is this service behind a proxy, let the \
         proxy pass on the Host header of the browser, or set SESSION_LOCK_ORIGIN to that address"
    )))
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
            (Some("http://evil.example"), Some("evil.example@localhost:7099"), None, false),
        ] {
            let checked = check(origin, host, configured);
            assert_eq!(checked.is_ok(), is_allowed, "{origin:?} {host:?} {configured:?}");
        }
    }
}
