use conclave_node::{demo, runtime::Runtime, serve};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("serve") => {
            let config = args.iter().position(|a| a == "--config").and_then(|i| args.get(i + 1)).map(Into::into);
            serve::run(serve::ServeOptions { config, exit_with_parent: args.iter().any(|a| a == "--exit-with-parent") }).await?;
        }
        _ => {
            let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1));
            demo::run(
                demo::DemoOptions { nodes: 3, base_port: value("--base-port").map_or(9000, |p| p.parse().unwrap()), data: value("--data").map(Into::into), admin_password: value("--admin-password").cloned(), json: args.iter().any(|a| a == "--json"), restart: args.iter().any(|a| a == "--restart") },
                Runtime::system(),
            )
            .await?;
        }
    }
    Ok(())
}
