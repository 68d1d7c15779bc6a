//! The worker that applies the repository.

fn main() -> std::process::ExitCode {
    observability_hub::gitops::main()
}
