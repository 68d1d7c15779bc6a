//! The collector of host statistics.

fn main() -> std::process::ExitCode {
    observability_hub::metrics::main()
}
