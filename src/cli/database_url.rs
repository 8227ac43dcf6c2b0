//! Parses `DATABASE_URL`. No error quotes a part of the URL that may belong to the password.

use mysql::{Opts, OptsBuilder, UrlError};

use super::url_parameters::instead_of;

const FORM: &str = "must look like mysql://user:password@host:port/db";

/// Parameters whose values are free text, which may contain an `@`.
const TEXTS: [&str; 7] = [
    "cert_chain_path",
    "password",
    "priv_key_path",
    "root_cert_path",
    "server_key_path",
    "socket",
    "user",
];

/// URL schemes of other MySQL and MariaDB clients. Errors do not quote unknown schemes.
const FOREIGN_SCHEMES: [&str; 7] =
    ["jdbc:mariadb", "jdbc:mysql", "mariadb", "mysql2", "mysqls", "mysqlx", "mysql-x"];

/// Parses a URL that names a database. `require_ssl=true` in its query turns TLS on.
pub fn parse(url: &str) -> Result<Opts, String> {
    check_form(url)?;
    check_password(url)?;
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let (require_ssl, others): (Vec<_>, Vec<_>) =
        pairs(query).partition(|pair| pair.starts_with("require_ssl="));
    let options = Opts::from_url(&format!("{address}?{}", others.join("&")))
        .map_err(|error| wrong(&error, query))?;
    let options = tls(options, &require_ssl)?;
    if options.get_db_name().is_none_or(str::is_empty) {
        return Err(format!("names no database: it {FORM}"));
    }
    Ok(options)
}

fn pairs(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(|pair| !pair.is_empty())
}

/// Recognises database URLs in the format of another client.
fn check_form(url: &str) -> Result<(), String> {
    if ["@tcp(", "@unix("].iter().any(|part| url.contains(part)) {
        return Err(format!("is in the form of Go's driver, but {FORM}"));
    }
    let scheme = url.split_once("://").unwrap_or_default().0.to_ascii_lowercase();
    if scheme == "mysql" {
        return Ok(());
    }
    let is_plain = |driver: &str| driver.chars().all(|c| c.is_ascii_alphanumeric());
    let with_driver = scheme
        .split_once('+')
        .is_some_and(|(name, driver)| ["mysql", "mariadb"].contains(&name) && is_plain(driver));
    if with_driver || FOREIGN_SCHEMES.contains(&&*scheme) {
        return Err(format!("begins with {scheme}://, but {FORM}"));
    }
    Err(FORM.to_owned())
}

/// Recognises a password that an unescaped character ends early. Without this check, the beginning
/// of the password would be parsed as the host, and the rest as the database or a parameter.
fn check_password(url: &str) -> Result<(), String> {
    let (_, rest) = url.split_once("://").unwrap_or_default();
    let (before_fragment, fragment) =
        rest.split_once('#').map_or((rest, None), |(b, f)| (b, Some(f)));
    let (before_query, query) = before_fragment.split_once('?').unwrap_or((before_fragment, ""));
    let (_, path) = before_query.split_once('/').unwrap_or((before_query, ""));
    let is_text = |pair: &str| pair.split_once('=').is_some_and(|(name, _)| TEXTS.contains(&name));
    let is_wrong = fragment.is_some()
        || path.contains('@')
        || pairs(query).any(|pair| pair.contains('@') && !is_text(pair));
    if is_wrong {
        return Err("has a / ? # or @ in a wrong place: if it belongs to the user or the password, percent-encode it (/ is %2F, ? is %3F, # is %23, @ is %40)".to_owned());
    }
    Ok(())
}

/// Describes the error without quoting any value.
fn wrong(error: &UrlError, query: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match error {
        // The name may be the rest of a password that contains `&`.
        UrlError::UnknownParameter(_) if pairs(query).any(|pair| pair.starts_with("password=")) => {
            "has an unknown parameter: if it belongs to the password, percent-encode it (& is %26)"
                .to_owned()
        }
        UrlError::UnknownParameter(name) if name.chars().all(is_plain) => {
            format!("has the unknown parameter {name}: {}", instead_of(name))
        }
        UrlError::UnknownParameter(_) => "has an unknown parameter".to_owned(),
        UrlError::InvalidValue(name, value) if value == "<MISSING>" => {
            format!("needs the parameter {name} too")
        }
        UrlError::InvalidValue(name, _) => format!("has a wrong value of {name}"),
        UrlError::FeatureRequired(_, name) => {
            format!("has the parameter {name}, which this build does not support")
        }
        _ => format!("{FORM}; percent-encode special characters in the password"),
    }
}

/// Adds TLS to the options if the URL requires it.
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
        return Err("requires TLS, which this build does not support".to_owned());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn error(url: &str) -> String {
        parse(url).expect_err(url)
    }

    #[test]
    fn other_programs_urls_are_told_what_is_expected() {
        for (url, said) in [
            ("mariadb://bot:s3cret@db/x", "begins with mariadb://, but must look like mysql://"),
            ("mysql2://bot:s3cret@db/x", "begins with mysql2://"),
            ("MySQL+PyMySQL://bot:s3cret@db/x", "begins with mysql+pymysql://"),
            ("jdbc:mysql://db:3306/x?user=bot&password=s3cret", "begins with jdbc:mysql://"),
            ("bot:s3cret@tcp(db:3306)/x?parseTime=true", "the form of Go's driver"),
            ("bot:s3cret://x@db/x", "must look like mysql://user:password@host:port/db"),
            ("mysql+s3cret@x://bot@db/x", "must look like"),
            ("mysql:host=db;dbname=x;password=s3cret", "must look like"),
            ("mysql://bot:s3cret@tcp(db:3306)/x", "the form of Go's driver"),
            ("mysql://db", "names no database"),
        ] {
            let said_here = error(url);
            assert!(said_here.contains(said), "{url}: {said_here}");
            assert!(!said_here.contains("s3cret"), "{said_here}");
        }
    }

    #[test]
    fn unknown_parameters_are_named_with_what_to_write_instead() {
        for (name, said) in [
            ("ssl-mode", "parameter ssl-mode: write require_ssl=true"),
            ("sslmode", "parameter sslmode: write require_ssl=true"),
            ("tls", "tls: write require_ssl=true"),
            ("useSSL", "or else leave it out"),
            ("ssl_ca", "write root_cert_path="),
            ("ssl-cert", "write cert_chain_path="),
            ("charset", "utf8mb4"),
            ("parseTime", "SESSION_LOCK_TIME_ZONE"),
            ("connection_limit", "SESSION_LOCK_WORKERS"),
            ("unix_socket", "write socket="),
            ("readTimeout", "the timeouts are fixed"),
            ("whatever", "parameter whatever: leave it out"),
            ("what%0Aever", "has an unknown parameter"),
            ("stmt_cache_size", "wrong value of stmt_cache_size"),
            ("cert_chain_path", "needs the parameter priv_key_path"),
        ] {
            let said_here = error(&format!("mysql://bot:s3cret@db/x?{name}=s3cret"));
            assert!(said_here.contains(said), "{name}: {said_here}");
            assert!(!said_here.contains("s3cret") && !said_here.contains('\n'), "{said_here}");
        }
    }

    #[test]
    fn a_password_that_was_not_encoded_is_recognised_and_never_quoted() {
        for url in [
            "mysql://bot:12/s3cret@db/x",
            "mysql://bot:s3cret/12@db/x",
            "mysql://bot:12?s3cret@db/x",
            "mysql://bot:12?a=s3cret@db/x",
            "mysql://bot:12?socket=1&s3cret=a@db/x",
            "mysql://bot:12#s3cret@db/x",
            "mysql://bot:a@s3cret/b@db/x",
            "mysql://bot:a@s3cret?b@db/x",
            "mysql://db/x?user=bot&password=a#s3cret",
            "mysql://db/x?user=bot&password=a&s3cret=b",
        ] {
            let said = error(url);
            assert!(said.contains("percent-encode"), "{url}: {said}");
            assert!(!said.contains("s3cret"), "{said}");
        }
        for (url, password) in [
            ("mysql://bot:a@b@db/x", "a@b"),
            ("mysql://bot:%2F%3F%23%40@db/x?socket=/run/a@b", "/?#@"),
            ("mysql://db/x?user=bot&password=a@b", "a@b"),
        ] {
            let options = parse(url).unwrap();
            assert_eq!(
                (options.get_pass(), &*options.get_ip_or_hostname()),
                (Some(password), "db")
            );
        }
    }
}
