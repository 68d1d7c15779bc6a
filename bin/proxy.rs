//! The gateway.
fn main() -> std::process::ExitCode {
    observability_hub::proxy::main()
}
