//! What the library's errors mean for the user: an exit status, and a hint where one helps.

use hbmqtt::client::ClientError;
use hbmqtt::proto::ReasonCode;

use crate::shared::exit::{self, Failure};

/// The status to exit with after `error`.
///
/// A refusal gives the Reason Code (128 to 162); a return code of MQTT 3.1.1 gives the Reason Code that it stands for.
pub(crate) fn status(error: &ClientError) -> u8 {
    match error {
        ClientError::InvalidOption(_) | ClientError::InvalidTopic(_) | ClientError::MissingUrl => {
            exit::USAGE
        }
        error => error.reason().map_or(exit::FAILURE, reason_status),
    }
}

/// The status to exit with after a refusal with this reason.
pub(crate) fn reason_status(reason: ReasonCode) -> u8 {
    match reason as u8 {
        value @ 0x80.. => value,
        _ => exit::FAILURE,
    }
}

/// Ends the program with `status`; what there was to say has been logged.
pub(crate) fn silent(status: u8) -> Failure {
    Failure {
        status,
        message: String::new(),
    }
}
