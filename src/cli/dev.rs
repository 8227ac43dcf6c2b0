//! `session-lock dev`: runs the service on a private database, and stops both together.

use std::ffi::OsString;

use super::migrate::migrate;
use super::private_database::PrivateDatabase;
use super::serve::serve;
use super::{Failure, print, settings};
use crate::http::Server;
use crate::net::Listen;

pub fn run(arguments: Vec<OsString>) -> Result<(), Failure> {
    print("starting a private database ...");
    let database = PrivateDatabase::start_installed().map_err(Failure::verbatim)?;
    let url = database.url();
    let environment = |variable: &str| match variable {
        "DATABASE_URL" => Some(url.clone().into()),
        _ => std::env::var_os(variable),
    };
    // With a configured offset, the database's own zone need not be UTC. In a temporary database,
    // no old program writes local time.
    let arguments = ["--time-zone=+00:00".into()].into_iter().chain(arguments);
    let config = settings::read(arguments, environment)?;
    migrate(&config)?;
    let server = Server::bind(&config).map_err(Failure::verbatim)?;
    print_examples(server.address(), &url, config.api_token.is_some());
    serve(server)
}

fn print_examples(address: &Listen, url: &str, needs_token: bool) {
    let (base, curl) = match address {
        Listen::Tcp(address) => (format!("http://{address}"), "curl".to_owned()),
        Listen::Unix(path) => {
            ("http://session-lock".to_owned(), format!("curl --unix-socket {}", path.display()))
        }
    };
    let curl = if needs_token {
        curl + r#" -H "Authorization: Bearer $SESSION_LOCK_API_TOKEN""#
    } else {
        curl
    };
    let ids = r#""id_device":"bot1","id_prospect":"60123456789""#;
    let owner = r#""owner_token":"48210000000000000007""#;
    print(format_args!(
        "\nserving on {address}; Ctrl-C stops the service and its database. In another terminal, try:\n\n\
         {curl} {base}/v1/acquire -d '{{{ids},{owner},\"ttl_ms\":300000}}'\n\
         {curl} {base}/v1/acquire -d '{{{ids}}}'\n\
         {curl} {base}/v1/release -d '{{{ids},{owner}}}'\n\n\
         For session-lock check and migrate:\n\n\
         export DATABASE_URL='{url}'\n"
    ));
}
