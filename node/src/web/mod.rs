//! Pages: what a person sees, rendered on the server, without any script but one: the form that posts itself back to a
//! client, which works by a press of its button as well.
//!
//! Owns the templates, the stylesheet and logo, and CSRF tokens. Knows no rules: it is handed finished view structs
//! and returns HTML. An operator may replace any template, the stylesheet or the logo by a file of the same name
//! in `http.template_dir`; a replacement that does not work is warned about and the built-in one serves instead.
//! Everything is escaped, always.

pub mod assets;
pub mod csrf;
mod files;
mod pages;
pub mod views;

pub use self::assets::Assets;
pub use self::pages::Pages;
