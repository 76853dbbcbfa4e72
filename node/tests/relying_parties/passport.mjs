// An Express application that signs users in with passport-openidconnect as its guide shows it: no PKCE, the client's
// secret in the body, and a nonce only if it is configured. Returns its data about the user at /; returns a refused
// sign-in as JSON.
//   node passport.mjs '{"issuer":…,"port":…,"nonce":false,"client":{"id":…,"secret":…}}'

import express from 'express';
import session from 'express-session';
import passport from 'passport';
import Strategy from 'passport-openidconnect';

const told = JSON.parse(process.argv[2]);
const reply = await fetch(`${told.issuer}/.well-known/openid-configuration`);
const provider = await reply.json();

passport.use(
  new Strategy(
    {
      issuer: provider.issuer,
      authorizationURL: provider.authorization_endpoint,
      tokenURL: provider.token_endpoint,
      userInfoURL: provider.userinfo_endpoint,
      clientID: told.client.id,
      clientSecret: told.client.secret,
      callbackURL: '/oauth2/redirect',
      scope: ['profile'],
      nonce: told.nonce,
    },
    (issuer, profile, done) => done(null, { issuer, username: profile.username }),
  ),
);
passport.serializeUser((user, done) => done(null, user));
passport.deserializeUser((user, done) => done(null, user));

const app = express();
app.use(session({ secret: 'of the test', resave: false, saveUninitialized: false }));
app.use(passport.authenticate('session'));
app.get('/login', passport.authenticate('openidconnect'));
app.get(
  '/oauth2/redirect',
  passport.authenticate('openidconnect', { failWithError: true }),
  (request, response) => response.redirect('/'),
);
app.get('/', (request, response) => response.json(request.user ?? null));
app.use((error, request, response, next) => response.status(401).json({ error: `${error}` }));
app.listen(told.port, '127.0.0.1');
