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
            demo::run(
                demo::DemoOptions { nodes: 3, base_port: 9000, data: Some("/tmp/demo".into()), admin_password: Some("correct horse battery".into()), json: true, restart: false },
                Runtime::system(),
            )
            .await?;
        }
    }
    Ok(())
}
