//! Authorisation: every call is denied unless a rule lets it through, decided in one place before any handler runs.
//!
//! The rule of a method stands in [`rules`]; the gate in front of all services checks the peer's certificate, its
//! standing (known, not revoked, not expired) and its role, and puts a [`Caller`] into the request's extensions.
//!
//! ```text
//! async fn pause(&self, request: Request<v1::PauseRolloutRequest>) -> Result<Response<..>, Status> {
//!     let caller = Caller::of(&request)?.clone();       // authorised already: this method's rule is Operator(Deployer)
//!     let name = caller.operator()?;                    // or caller.host()? in methods of hosts
//!     let mut tx = self.store.begin(&caller).await?;    // the caller is the actor of the audit entry
//! ```

mod caller;
mod gate;
pub mod refusals;
mod roster;
mod rules;

pub use caller::Caller;
pub use gate::{Gate, Refusal};
pub use refusals::Refusals;
pub use roster::{Roster, Standing};
pub use rules::{Rule, rule};
