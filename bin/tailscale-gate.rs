//! The keeper of the public door.

fn main() -> std::process::ExitCode {
    observability_hub::gate::main()
}
