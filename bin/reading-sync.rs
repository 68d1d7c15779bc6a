//! The client of the pipelines.
fn main() -> std::process::ExitCode {
    observability_hub::reading::main()
}
