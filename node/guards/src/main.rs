//! `make prose`: prints the counts; exits with 1 if one differs from the budget. `--write` makes them the budget;
//! `--list` prints every place.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use conclave_guards::{
    files,
    prose::{self, Budget},
};

/// The workspace: two directories above this crate.
fn workspace() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

fn main() -> ExitCode {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    match run(has("--write"), has("--list")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(write: bool, list: bool) -> Result<bool, String> {
    let root = workspace();
    let budget_file = root.join("node/guards/prose-budget.txt");
    let files = files::rust_files(&root).map_err(|error| format!("{}: {error}", root.display()))?;
    let (sentences, counts) = prose::counts(&files);
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{sentences} doc sentences");
    for count in &counts {
        let _ = writeln!(out, "{:5}  {}", count.found, count.name);
        let shown = if list { usize::MAX } else { prose::EXAMPLES };
        for example in count.examples.iter().take(shown) {
            let _ = writeln!(out, "       {example}");
        }
    }
    if write {
        let text = Budget::text(&counts);
        return std::fs::write(&budget_file, text).map(|()| true).map_err(|error| error.to_string());
    }
    let text = std::fs::read_to_string(&budget_file)
        .map_err(|error| format!("{}: {error}", budget_file.display()))?;
    let budget = Budget::parse(&text).map_err(|line| format!("{}: {line:?}", budget_file.display()))?;
    let differs = budget.compare(&counts);
    for line in &differs {
        let _ = writeln!(out, "{line}");
    }
    Ok(differs.is_empty())
}
