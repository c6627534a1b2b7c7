//! Commands that actions run: as a hook is, with its bounds.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{ActionError, Scene};
use crate::hook::{self, Call, End};

/// Runs a command to its end and returns what it printed.
pub(super) async fn run(
    scene: &Scene,
    command: &[String],
    timeout: Duration,
    token: &CancellationToken,
) -> Result<String, ActionError> {
    let call = Call {
        command: command.to_vec(),
        release: scene.release.clone(),
        environment: scene.environment.clone(),
        timeout,
        user: None,
        id: hook::new_id(&format!("{}action", scene.scope)),
    };
    let ended = hook::run(&call, token).await;
    match ended.end {
        End::Succeeded => Ok(ended.output),
        End::Interrupted => Err(ActionError::Interrupted),
        End::TryLater => Err(ActionError::failed(format!("{} asks to be tried later", command.join(" ")))),
        End::Failed(reason) => Err(ActionError::Failed {
            reason: format!("{} {reason}", command.join(" ")),
            output: ended.output,
        }),
    }
}
