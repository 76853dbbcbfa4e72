//! The data of each page: one struct per page, with finished data only.

use serde::Serialize;

/// A struct that one template renders.
pub trait PageView: Serialize {
    /// File name of the template.
    const TEMPLATE: &'static str;
}

/// The common data of every form, besides its own fields.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Form {
    /// The path that it posts to.
    pub action: String,
    /// See [`csrf`](super::csrf).
    pub csrf: String,
    pub hidden: Vec<HiddenField>,
}

/// A hidden field: the sealed ticket of a login, a return target.
#[derive(Clone, Debug, Serialize)]
pub struct HiddenField {
    pub name: String,
    pub value: String,
}

/// A link. The URL must be one of ours or of a registered application, never one from a request.
#[derive(Clone, Debug, Serialize)]
pub struct PageLink {
    pub url: String,
    pub label: String,
}

/// Username and password. Ids: `login-form`, `username`, `password`, `csrf`, `submit`, `error`, `providers`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LoginView {
    pub form: Form,
    /// Name of the application that the user is about to open.
    pub application: Option<String>,
    /// The username typed before a failed attempt.
    pub username: String,
    /// The reason why the last attempt failed.
    pub error: Option<String>,
    /// Other providers to sign in at.
    pub providers: Vec<ProviderLink>,
    pub back: Option<PageLink>,
}

/// A way to sign in at another provider. Id: `upstream-<name>`.
#[derive(Clone, Debug, Serialize)]
pub struct ProviderLink {
    pub name: String,
    pub label: String,
    pub url: String,
}

/// The form for an Atmosphere identity. Posts `handle`. Ids: `atmosphere-form`, `handle`, `submit`, `error`,
/// `error-code`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AtmosphereView {
    pub form: Form,
    /// The text typed before.
    pub handle: String,
    /// The reason why the last attempt failed, in words and as a code.
    pub error: Option<String>,
    pub code: String,
    /// True if the page is for linking an account, not for signing in.
    pub linking: bool,
}

/// A provider on the home page. Ids: `unlink-<name>` if an identity there is linked, `link-<name>` otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct LinkedProvider {
    pub name: String,
    pub label: String,
    /// The display name of the linked identity.
    pub identity: Option<String>,
    pub url: String,
}

/// "Allow access?". Posts `decision=allow` or `decision=deny`. Ids: `consent-form`, `scopes`, `submit`, `deny`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConsentView {
    pub form: Form,
    pub application: String,
    pub username: String,
    pub scopes: Vec<ScopeLine>,
    /// Host that the browser is redirected to afterwards; empty if it stays here.
    pub destination: String,
    /// The code on the device, for the user to compare; empty without a device.
    pub user_code: String,
    /// The reason why the page is shown again.
    pub note: Option<String>,
}

/// The form that posts the response to a client. Ids: `form-post`, `continue`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FormPostView {
    /// A registered redirect URI.
    pub action: String,
    pub fields: Vec<HiddenField>,
    /// The only script of any page; the response's content security policy names its hash.
    pub script: &'static str,
}

/// A page that redirects to another site at once. Id: `continue`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ContinueView {
    /// A checked address.
    pub next: String,
}

/// The code of a device. Posts `user_code`. Ids: `device-form`, `user-code`, `submit`, `error`, `account`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DeviceView {
    pub form: Form,
    /// The code that was typed or scanned.
    pub user_code: String,
    pub username: String,
    pub error: Option<String>,
}

/// The form for a new password after a recovery link. Posts `password` and `again`. Ids: `recover-form`, `account`,
/// `password`, `again`, `submit`, `error`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RecoverView {
    pub form: Form,
    pub username: String,
    pub error: Option<String>,
}

/// The result of a device's request. Id: `device-done`, with `data-outcome` = `allowed` or `denied`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DeviceDoneView {
    pub outcome: &'static str,
    pub title: String,
    pub detail: String,
}

/// A client that the user gave consent to.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectedClient {
    pub client_id: String,
    pub name: String,
    pub scopes: Vec<ScopeLine>,
}

/// One permission that an application requests.
#[derive(Clone, Debug, Serialize)]
pub struct ScopeLine {
    /// The OAuth scope.
    pub name: String,
    /// The permission, completing "It will be able to …".
    pub text: String,
}

/// "Sign out?". Ids: `logout-form`, `account`, `submit`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LogoutView {
    pub form: Form,
    pub username: String,
    pub back: Option<PageLink>,
}

/// The page after signing out. Ids: `signed-out`, `sign-in` or `continue`, `frame-0` and so on.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SignedOutView {
    pub sign_in_url: String,
    /// Pages of applications to load, so that the user is signed out there as well.
    pub frames: Vec<String>,
    /// The address to continue to, after the pages had a moment to load.
    pub next: Option<String>,
    pub back: Option<PageLink>,
}

/// The user's start page. Ids: `account`, `applications`, `connections`, `disconnect-<client id>`, `providers`,
/// `logout-form`, `sign-out`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HomeView {
    /// Posts the sign-out.
    pub form: Form,
    pub username: String,
    pub display_name: Option<String>,
    /// The address of the picture in the circle, if there is one.
    pub picture: Option<String>,
    /// Letter in the circle without a picture: see [`HomeView::initial_of`].
    pub initial: String,
    pub applications: Vec<PageLink>,
    /// The consents that the user gave for good.
    pub connections: Vec<ConnectedClient>,
    /// Posts the `client_id` of the connection to end.
    pub disconnect: Form,
    /// Other providers to sign in at.
    pub providers: Vec<LinkedProvider>,
    /// Posts the `upstream` to unlink.
    pub unlink: Form,
}

impl HomeView {
    /// The first letter of a name, in upper case.
    pub fn initial_of(name: &str) -> String {
        name.chars().find(|c| c.is_alphanumeric()).map(|c| c.to_uppercase().collect()).unwrap_or_default()
    }
}

/// The page for a signed-in user without access. Ids: `forbidden`, `account`, `application`, `error-code`,
/// `decision-id`, `request-id`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ForbiddenView {
    pub username: String,
    /// Name or host of the application.
    pub application: String,
    /// Groups that may open it, if the user may know them.
    pub groups: Vec<String>,
    pub sign_out_url: Option<String>,
    /// The id under which the decision is recorded.
    pub decision_id: Option<String>,
    pub request_id: String,
    pub back: Option<PageLink>,
}

/// An error page. Ids: `error-title`, `error-detail`, `what-to-do`, `error-code`, `request-id`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ErrorView {
    pub title: String,
    pub detail: String,
    pub what_to_do: Option<String>,
    pub code: String,
    pub request_id: String,
    pub back: Option<PageLink>,
}

macro_rules! views {
    ($($view:ty => $template:literal),+ $(,)?) => {
        $(impl PageView for $view {
            const TEMPLATE: &'static str = $template;
        })+
    };
}

views! {
    LoginView => "login.html",
    AtmosphereView => "atmosphere.html",
    ConsentView => "consent.html",
    LogoutView => "logout.html",
    FormPostView => "form_post.html",
    ContinueView => "continue.html",
    DeviceView => "device.html",
    RecoverView => "recover.html",
    DeviceDoneView => "device_done.html",
    SignedOutView => "signed_out.html",
    HomeView => "home.html",
    ForbiddenView => "forbidden.html",
    ErrorView => "error.html",
}
