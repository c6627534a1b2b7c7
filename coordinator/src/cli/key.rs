//! `key`: the keys that sign releases. Local work only.

use std::path::Path;

use anyhow::Context as _;
use fs_err as fs;
use serde::Serialize;
use sluice_common::keys::{PublicKey, SecretKey, public_path};

use super::Context;
use super::args::KeyCommand;
use super::exit::Exit;
use super::output::pairs;

#[derive(Serialize)]
struct Key {
    id: String,
    public_key: PublicKey,
}

pub(super) fn run(context: &Context, command: KeyCommand) -> anyhow::Result<Exit> {
    match command {
        KeyCommand::New { file } => new(context, &file),
        KeyCommand::Show { file } => show(context, &file),
    }
}

fn new(context: &Context, file: &Path) -> anyhow::Result<Exit> {
    let public = SecretKey::generate()?
        .store(file)
        .with_context(|| format!("cannot make the key {}", file.display()))?;
    let key = Key { id: public.id(), public_key: public };
    context.output.show(&key, || format!("{}\n", key.id))?;
    context.output.note(format_args!(
        "secret key in {}: keep it where releases are signed; hosts pin {}",
        file.display(),
        public_path(file).display()
    ));
    Ok(Exit::Success)
}

fn show(context: &Context, file: &Path) -> anyhow::Result<Exit> {
    let failed = || format!("cannot read the key {}", file.display());
    // Both kinds are one line that begins with its name; a secret one also has to pass the check of its mode.
    let is_public = fs::read_to_string(file).with_context(failed)?.starts_with("sluice-public-key");
    let public = if is_public {
        PublicKey::load(file).with_context(failed)?
    } else {
        SecretKey::load(file).with_context(failed)?.public()
    };
    let key = Key { id: public.id(), public_key: public };
    context
        .output
        .show(&key, || pairs(&[("id", key.id.clone()), ("public key", key.public_key.to_string())]))?;
    Ok(Exit::Success)
}
