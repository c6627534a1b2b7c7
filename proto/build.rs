//! Compiles the protocol with `protox`, so that no `protoc` is needed on any machine.

use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "sluice/v1/types.proto",
        "sluice/v1/agent.proto",
        "sluice/v1/operator.proto",
        "sluice/v1/environment.proto",
        "sluice/v1/records.proto",
        "sluice/v1/forecast.proto",
    ];
    for file in files {
        println!("cargo::rerun-if-changed=proto/{file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    // Kept for reflection and for the test that no method lacks an authorisation rule.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    fs_err::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".sluice.v1.FrameData")
        .bytes(".sluice.v1.PushChunks")
        .compile_fds(descriptors)?;
    Ok(())
}
