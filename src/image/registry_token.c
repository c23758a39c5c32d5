/* Answering challenges: Basic, and Bearer tokens from a token server. */
#include "base/buf.h"
#include "base/clock.h"
#include "image/registry_internal.h"

static bool has_password(const struct registry_auth *auth)
{
        return auth && !str_empty(auth->username) && auth->password;
}

static int refuse(struct registry *registry, const char *why, struct err *err)
{
        if (!registry->repository)
                return err_plain(err, EACCES, "unauthorized: %s", why);
        return err_plain(err, EACCES, "unauthorized: %s; log in with 'docker login %s'", why,
                         registry->host);
}

/* The scopes we need, whatever the challenge says: "repository:a/b:pull". */
static char *query(struct registry *registry, const struct registry_challenge *challenge,
                   const char *separator)
{
        auto_buf text = { 0 };
        if (challenge->service) {
                auto_free char *service = registry_query_escape(challenge->service);
                buf_printf(&text, "%sservice=%s", separator, service);
                separator = "&";
        }
        if (registry->repository) {
                auto_free char *scope = xasprintf("repository:%s:%s", registry->repository,
                                                  registry->access == REGISTRY_PUSH ? "pull,push"
                                                                                    : "pull");
                auto_free char *escaped = registry_query_escape(scope);
                buf_printf(&text, "%sscope=%s", separator, escaped);
                separator = "&";
        }
        if (registry->mount_source) {
                auto_free char *scope = xasprintf("repository:%s:pull", registry->mount_source);
                auto_free char *escaped = registry_query_escape(scope);
                buf_printf(&text, "%sscope=%s", separator, escaped);
        }
        return buf_take(&text);
}

static int ask_token(struct registry *registry, struct fetcher *fetcher, struct fetch *fetch,
                     struct registry_token *ret, struct err *err)
{
        struct fetch_result result = { 0 };
        int r = fetch_perform(fetcher, fetch, &result, err);
        if (r < 0)
                return err_wrap(err, "ask for a token"), r;
        struct registry_error error;
        registry_error_parse(result.body, result.body_size, &error);
        if (result.status / 100 == 2)
                r = registry_token_parse(result.body ? result.body : "", result.body_size, ret,
                                         err);
        else if (result.status == 401 || result.status == 403 || result.status == 400)
                r = refuse(registry, error.text[0] ? error.text : "incorrect username or password",
                           err);
        else
                r = err_plain(err, EPROTO, "the token server of %s answers %d %s", registry->host,
                              result.status, error.text);
        fetch_result_finish(&result);
        return r;
}

/* OAuth2: a refresh token is traded for an access token by POST. */
static int refresh(struct registry *registry, struct fetcher *fetcher,
                   const struct registry_challenge *challenge, struct fetch *fetch,
                   struct registry_token *ret, struct err *err)
{
        auto_free char *token = registry_query_escape(registry->auth->identity_token);
        auto_free char *rest = query(registry, challenge, "&");
        auto_free char *form = xasprintf(
                "grant_type=refresh_token&refresh_token=%s&client_id=isle%s", token, rest);
        char *headers[] = { "Content-Type: application/x-www-form-urlencoded", NULL };
        fetch->method = "POST";
        fetch->url = challenge->realm;
        fetch->headers = headers;
        fetch->body = form;
        fetch->body_size = strlen(form);
        return ask_token(registry, fetcher, fetch, ret, err);
}

static int get_token(struct registry *registry, struct fetcher *fetcher,
                     const struct registry_challenge *challenge, struct registry_token *ret,
                     struct err *err)
{
        struct registry_url url = { 0 };
        if (registry_url_parse(challenge->realm, &url) < 0)
                return err_plain(err, EPROTO, "registry %s names '%.200s' as its token server",
                                 registry->host, challenge->realm);
        struct fetch fetch = { 0 };
        registry_prepare(registry, url.host, &fetch);
        bool plain = streq(url.scheme, "http");
        bool allowed = !plain || streq(registry->scheme, "http") ||
                       registry_is_insecure(registry->pool->insecure, url.host);
        registry_url_finish(&url);
        if (!allowed)
                return err_plain(err, EPROTO,
                                 "registry %s names a token server without TLS ('%.200s'); name it "
                                 "as an insecure registry to allow that",
                                 registry->host, challenge->realm);
        if (registry->auth && !str_empty(registry->auth->identity_token))
                return refresh(registry, fetcher, challenge, &fetch, ret, err);

        auto_free char *rest = query(registry, challenge,
                                     strchr(challenge->realm, '?') ? "&" : "?");
        auto_free char *whole = xasprintf("%s%s", challenge->realm, rest);
        auto_free char *basic = NULL;
        char *headers[] = { NULL, NULL };
        if (has_password(registry->auth)) {
                auto_free char *value = registry_basic(registry->auth->username,
                                                       registry->auth->password);
                headers[0] = basic = xasprintf("Authorization: %s", value);
        }
        fetch.url = whole;
        fetch.headers = headers;
        return ask_token(registry, fetcher, &fetch, ret, err);
}

static int answer(struct registry *registry, struct fetcher *fetcher, const char *text,
                  char **ret_authorization, struct err *err)
{
        struct registry_challenge challenge = { 0 };
        if (!text || registry_challenge_parse(text, &challenge) < 0)
                return err_plain(err, EPROTO,
                                 "registry %s wants an authorization that is neither Basic nor "
                                 "Bearer (%.200s)",
                                 registry->host, text ? text : "none named");
        int r = 0;
        if (challenge.basic) {
                if (!has_password(registry->auth))
                        r = refuse(registry, "authentication required", err);
                else
                        *ret_authorization = registry_basic(registry->auth->username,
                                                            registry->auth->password);
        } else if (registry->auth && !str_empty(registry->auth->registry_token)) {
                if (!registry_token_printable(registry->auth->registry_token))
                        r = err_plain(err, EINVAL,
                                      "the registry token holds a blank or control "
                                      "character");
                else
                        *ret_authorization = xasprintf("Bearer %s", registry->auth->registry_token);
        } else {
                struct registry_token token = { 0 };
                r = get_token(registry, fetcher, &challenge, &token, err);
                if (r == 0)
                        *ret_authorization = xasprintf("Bearer %s", token.token);
                free(token.token);
        }
        registry_challenge_finish(&challenge);
        return r;
}

int registry_authorize(struct registry *registry, struct fetcher *fetcher, const char *challenge,
                       unsigned generation, struct err *err)
{
        int r = 0;
        pthread_mutex_lock(&registry->mutex);
        if (registry->generation == generation) {
                char *authorization = NULL;
                r = answer(registry, fetcher, challenge, &authorization, err);
                if (r == 0) {
                        free(registry->authorization);
                        registry->authorization = authorization;
                        registry->generation++;
                }
        }
        pthread_mutex_unlock(&registry->mutex);
        return r;
}
