//! What stands for [`Lanes`] where no processor has any.

use super::many::{Block, State};

/// Never there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lanes {}

impl Lanes {
    /// Returns nothing.
    pub(super) fn detect() -> Option<Self> {
        None
    }

    /// Is never called.
    pub(super) fn compress<const N: usize>(self, _states: &mut [State; N], _messages: [&[Block]; N]) {
        match self {}
    }
}
