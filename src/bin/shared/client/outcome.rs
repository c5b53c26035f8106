//! What the library's errors mean for the user: an exit status, and a hint where one helps.

use hbmqtt::client::ClientError;
use hbmqtt::proto::ReasonCode;

use log::error;

use crate::shared::exit::{self, Failure};
use crate::shared::signals;

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

/// A call of the library failed: says so, unless that is because the program is being stopped.
#[allow(dead_code, reason = "hbmqtt_pub has words of its own")]
pub(crate) fn failed(error: &ClientError) -> Failure {
    signals::give_way();
    error!("{error}");
    silent(status(error))
}

/// Ends the program with `status`; what there was to say has been logged.
pub(crate) fn silent(status: u8) -> Failure {
    Failure {
        status,
        message: String::new(),
    }
}
