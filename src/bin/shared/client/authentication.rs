//! `-D connect authentication-method`: who the client is, by more than a password.

use bytes::Bytes;
use hbmqtt::client::{
    AuthenticationError, AuthenticationExchange, ConnectOptions, EnhancedAuthentication,
};

use super::properties::Properties;
use crate::shared::exit::Failure;

/// The method that the programs can carry out.
const SCRAM: &str = "SCRAM-SHA-256";

/// Puts in what the properties of CONNECT say about authentication, and user name and password where they belong:
/// SCRAM needs both, and neither leaves the client.
///
/// # Errors
/// A usage error when something is missing or too much.
pub(crate) fn apply(
    options: ConnectOptions,
    properties: &Properties,
    user: Option<String>,
    password: Option<Vec<u8>>,
) -> Result<ConnectOptions, Failure> {
    let (method, data) = properties.authentication();
    match (method, data, user, password) {
        (None, Some(_), ..) => Err(Failure::usage(
            "option '-D connect authentication-data': it needs authentication-method",
        )),
        (Some(SCRAM), Some(_), ..) => Err(Failure::usage(format!(
            "option '-D connect authentication-data': {SCRAM} makes its own from user name and password"
        ))),
        (Some(SCRAM), None, Some(user), Some(password)) => Ok(options.scram(user, password)),
        (Some(SCRAM), None, ..) => Err(Failure::usage(format!(
            "option '-D connect authentication-method': {SCRAM} needs a user name and a password"
        ))),
        (method, data, user, password) => {
            let options = match (user, password) {
                (Some(user), Some(password)) => options.credentials(user, password),
                (Some(user), None) => options.user_name(user),
                (None, Some(password)) => options.password(password),
                (None, None) => options,
            };
            Ok(match method {
                Some(method) => options.authentication(FirstStep {
                    method: method.to_owned(),
                    data: data.map(|data| Bytes::copy_from_slice(data.as_bytes())),
                }),
                None => options,
            })
        }
    }
}

/// Whether user name and password are for SCRAM.
pub(crate) fn is_scram(properties: &Properties) -> bool {
    properties.authentication().0 == Some(SCRAM)
}

/// A method that the user knows and the program does not: method and data as they were given, and nothing after that.
#[derive(Debug)]
struct FirstStep {
    method: String,
    data: Option<Bytes>,
}

#[derive(Debug)]
struct NoSecondStep;

impl EnhancedAuthentication for FirstStep {
    fn method(&self) -> &str {
        &self.method
    }

    fn begin(
        &self,
    ) -> Result<(Box<dyn AuthenticationExchange>, Option<Bytes>), AuthenticationError> {
        Ok((Box::new(NoSecondStep), self.data.clone()))
    }
}

impl AuthenticationExchange for NoSecondStep {
    fn answer(&mut self, _: Option<&[u8]>) -> Result<Option<Bytes>, AuthenticationError> {
        let problem = format!("the server asks for more, and of all methods only {SCRAM} is known");
        Err(AuthenticationError::Method(problem.into()))
    }

    fn finish(&mut self, _: Option<&[u8]>) -> Result<(), AuthenticationError> {
        Ok(())
    }
}
