//! The parameters of other programs' database URLs, and what to write instead.

/// The remedies for parameters with these names, which are written in lower case without `-` and
/// `_`.
const FOREIGN: [(&[&str], &str); 12] = [
    (
        &["encrypt", "requiressl", "secure", "ssl", "sslmode", "tls", "usessl", "usetls"],
        "write require_ssl=true if the connection must use TLS, or else leave it out",
    ),
    (
        &["ca", "cafile", "serversslcert", "sslca", "sslcapath", "sslrootcert", "tlsca"],
        "write root_cert_path=/path/to/ca.pem",
    ),
    (
        &["sslcert", "sslidentity", "sslkey", "tlscert", "tlskey"],
        "write cert_chain_path=/path/to/cert.pem and priv_key_path=/path/to/key.pem",
    ),
    (
        &[
            "disablesslhostnameverification",
            "rejectunauthorized",
            "sslaccept",
            "sslverifycert",
            "sslverifyidentity",
            "sslverifyservercert",
            "trustservercertificate",
            "verifyservercertificate",
        ],
        "leave it out: with require_ssl=true, the server's certificate and its name are checked",
    ),
    (
        &[
            "charset",
            "characterencoding",
            "characterset",
            "collation",
            "connectioncollation",
            "encoding",
            "useunicode",
        ],
        "leave it out: it is always utf8mb4",
    ),
    (
        &[
            "connectiontimezone",
            "loc",
            "parsetime",
            "servertimezone",
            "timezone",
            "uselegacydatetimecode",
        ],
        "leave it out, and set SESSION_LOCK_TIME_ZONE if the database's clock is not UTC",
    ),
    (
        &[
            "acquiretimeout",
            "connecttimeout",
            "connectiontimeout",
            "pooltimeout",
            "readtimeout",
            "sockettimeout",
            "timeout",
            "writetimeout",
        ],
        "leave it out: the timeouts are fixed",
    ),
    (
        &[
            "connectionlimit",
            "maxconnections",
            "maxidleconns",
            "maxopenconns",
            "maxpoolsize",
            "minpoolsize",
            "pool",
            "poolsize",
        ],
        "leave it out: SESSION_LOCK_WORKERS sets the number of connections",
    ),
    (&["socketpath", "unixsocket"], "write socket=/path/to/mysqld.sock"),
    (
        &["database", "db", "dbname", "pass", "pwd", "schema", "uid", "username"],
        "write it at its place in mysql://user:password@host:port/db",
    ),
    (
        &["allownativepasswords", "allowpublickeyretrieval", "authplugin", "defaultauth"],
        "leave it out: the server decides how the user logs in",
    ),
    (&["allowcleartextpasswords"], "write enable_cleartext_plugin=true, over TLS or a socket only"),
];

/// The remedy for an unknown parameter.
pub fn instead_of(name: &str) -> &'static str {
    let plain = name.replace(['-', '_'], "").to_ascii_lowercase();
    let known = FOREIGN.iter().find(|(names, _)| names.contains(&plain.as_str()));
    known.map_or("leave it out", |(_, remedy)| remedy)
}
