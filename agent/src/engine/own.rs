//! The start of a release of the agent itself: this process gives way to it.

use tokio_util::sync::CancellationToken;

use super::Engine;
use super::deeds::Told;
use crate::content::Origin;
use crate::layout::AppDir;
use crate::sequence::{Event, Whose};
use crate::state::Switch;
use crate::update::Start;

impl<O: Origin> Engine<O> {
    /// Says whether the application is the agent itself.
    pub(super) fn is_agent(&self) -> bool {
        self.app == self.host.own.app
    }

    /// Has the release of the agent itself run that a step speaks to. This process ends for it; the next one comes here again and
    /// finds that it is what was to run.
    pub(super) async fn tell_agent(
        &self,
        event: Event,
        whose: Whose,
        switch: &Switch,
        token: &CancellationToken,
    ) -> Told {
        if event != Event::Start {
            return Told::Done { last_line: None };
        }
        let target = self.addressee(whose, switch);
        // A process knows its program by its real name.
        let root = fs_err::canonicalize(&self.host.root).unwrap_or_else(|_| self.host.root.clone());
        let dir = AppDir::new(&root, &self.app);
        match self.host.own.start(&dir, target.as_ref(), whose == Whose::New) {
            Start::Runs => Told::Done { last_line: None },
            Start::Fails(reason) => Told::Failed { reason: reason.to_owned(), output: None },
            Start::GiveWay => {
                tracing::info!(
                    version = target.map(|release| release.version.to_string()),
                    "agent gives way to another release of itself"
                );
                self.host.own.give_way.cancel();
                token.cancelled().await;
                Told::Interrupted
            }
        }
    }
}
