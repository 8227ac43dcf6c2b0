//! Parses `DATABASE_URL`. No error quotes the URL, because it holds the password.

use mysql::{Opts, OptsBuilder};

/// Parses a URL that names a database. `require_ssl=true` in its query turns TLS on.
pub fn parse(url: &str) -> Result<Opts, String> {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let (require_ssl, others): (Vec<_>, Vec<_>) = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .partition(|pair| pair.starts_with("require_ssl="));
    let options = Opts::from_url(&format!("{address}?{}", others.join("&"))).map_err(|_| {
        "must look like mysql://user:password@host:port/db; percent-encode special characters in the password"
    })?;
    let options = tls(options, &require_ssl)?;
    if options.get_db_name().is_none_or(str::is_empty) {
        return Err(
            "names no database: it must look like mysql://user:password@host:port/db".to_owned()
        );
    }
    Ok(options)
}

/// The options with TLS, if the URL asks for it.
fn tls(options: Opts, require_ssl: &[&str]) -> Result<Opts, String> {
    let is_required = match require_ssl {
        [] | ["require_ssl=false"] => options.get_ssl_opts().is_some(),
        ["require_ssl=true"] => true,
        _ => return Err("has a require_ssl that is neither true nor false".to_owned()),
    };
    if !is_required {
        return Ok(options);
    }
    if !cfg!(feature = "tls") {
        return Err("asks for TLS, which this binary was built without".to_owned());
    }
    let ssl = options.get_ssl_opts().cloned().unwrap_or_default();
    if let Some(path) = ssl.root_cert_path()
        && let Err(error) = std::fs::read(path)
    {
        let path = path.display();
        return Err(format!("names a root_cert_path that cannot be read: {path} ({error})"));
    }
    Ok(OptsBuilder::from_opts(options).ssl_opts(ssl).into())
}
