/* One request to a registry: redirects, authorization, retries; manifests. */
#include "image/registry.h"

#include <inttypes.h>
#include <strings.h>

#include "base/buf.h"
#include "base/clock.h"
#include "image/registry_internal.h"
#include "oci/image_spec.h"

/* ---- one exchange ------------------------------------------------------ */

/* Where a request stands. */
struct exchange {
        struct registry *registry;
        const struct registry_request *request;
        struct fetcher *fetcher;
        const char *scheme; /* of the registry */
        uint64_t delivered; /* bytes the sink has had, since request->offset */
        uint64_t skip;      /* bytes to drop: the server began at zero */
};

static int exchange_head(void *arg, const struct fetch_result *result, struct err *err)
{
        struct exchange *x = arg;
        (void)err;
        x->skip = result->status == 206 ? 0 : x->request->offset + x->delivered;
        return 0;
}

static int exchange_write(void *arg, const void *data, size_t size, struct err *err)
{
        struct exchange *x = arg;
        if (x->skip >= size) {
                x->skip -= size;
                return 0;
        }
        data = (const char *)data + x->skip;
        size -= (size_t)x->skip;
        x->skip = 0;
        int r = x->request->sink(x->request->arg, data, size, err);
        if (r == 0)
                x->delivered += size;
        return r;
}

static void exchange_sent(void *arg, uint64_t sent_bytes)
{
        struct exchange *x = arg;
        if (x->request->sent)
                x->request->sent(x->request->arg, sent_bytes);
}

static void fill(struct exchange *x, struct fetch *fetch)
{
        const struct registry_request *request = x->request;
        fetch->method = request->method;
        fetch->body = request->body;
        fetch->body_fd = request->body_fd;
        fetch->has_body_fd = request->has_body_fd;
        fetch->body_offset = request->body_offset;
        fetch->body_size = request->body_size;
        fetch->sent = exchange_sent;
        fetch->arg = x;
        fetch->size_limit = request->size_limit;
        if (request->sink) {
                fetch->head = exchange_head;
                fetch->write = exchange_write;
                fetch->resume_offset = request->offset + x->delivered;
                fetch->size_limit = 0;
        }
}

/* Sends the request to `url`; credentials only where it is the registry itself. */
static int send_to(struct exchange *x, const char *url, unsigned *ret_generation, bool *ret_own,
                   struct fetch_result *ret, struct err *err)
{
        struct registry *registry = x->registry;
        struct registry_url parsed = { 0 };
        if (registry_url_parse(url, &parsed) < 0)
                return err_plain(err, EPROTO, "registry %s leads to '%.200s'", registry->host, url);
        struct fetch fetch = { .url = url };
        registry_prepare(registry, parsed.host, &fetch);
        fill(x, &fetch);

        char **headers = strv_copy(x->request->headers);
        pthread_mutex_lock(&registry->mutex);
        bool own = streq(parsed.host, registry->host) && streq(parsed.scheme, x->scheme);
        if (own && registry->authorization)
                strv_push_take(&headers, xasprintf("Authorization: %s", registry->authorization));
        *ret_generation = registry->generation;
        pthread_mutex_unlock(&registry->mutex);
        bool allowed = streq(parsed.scheme, "https") || streq(x->scheme, "http") ||
                       registry_is_insecure(registry->pool->insecure, parsed.host);
        registry_url_finish(&parsed);
        *ret_own = own;
        fetch.headers = headers;
        int r = allowed ? fetch_perform(x->fetcher, &fetch, ret, err)
                        : err_plain(err, EPROTO, "registry %s redirects to plain http ('%.200s')",
                                    registry->host, url);
        strv_free(headers);
        return r;
}

/* A reply may have several WWW-Authenticate headers. */
static char *challenges(const struct fetch_result *result)
{
        auto_buf all = { .limit_bytes = REGISTRY_HEADER_MAX };
        for (char **header = result->headers; header && *header; header++)
                if (strncasecmp(*header, "WWW-Authenticate:", 17) == 0) {
                        if (all.size > 0)
                                buf_puts(&all, ", ");
                        buf_puts(&all, *header + 17);
                }
        return buf_take(&all);
}

static bool is_redirect(const struct registry_request *request, const struct fetch_result *result)
{
        bool reads = !request->method || streq(request->method, "GET") ||
                     streq(request->method, "HEAD");
        return result->location && ((result->status / 100 == 3 && reads && result->status != 304) ||
                                    result->status == 307 || result->status == 308);
}

/* One attempt: follows redirects and answers one challenge. */
static int attempt(struct exchange *x, struct fetch_result *ret, struct err *err)
{
        struct registry *registry = x->registry;
        auto_free char *url = x->request->url ? xstrdup(x->request->url)
                                              : xasprintf("%s://%s%s", x->scheme, registry->host,
                                                          x->request->path);
        bool answered = false;
        for (unsigned hops = 0; hops <= REGISTRY_REDIRECTS_MAX + 1; hops++) {
                struct fetch_result result = { 0 };
                unsigned generation = 0;
                bool own = false;
                int r = send_to(x, url, &generation, &own, &result, err);
                if (r < 0) {
                        ret->transient = result.transient;
                        return r;
                }
                if (is_redirect(x->request, &result)) {
                        free(url);
                        url = take_ptr(result.location);
                        fetch_result_finish(&result);
                        continue;
                }
                if (result.status != 401 || !own || answered) {
                        *ret = result;
                        return 0;
                }
                auto_free char *challenge = challenges(&result);
                fetch_result_finish(&result);
                r = registry_authorize(registry, x->fetcher, challenge, generation, err);
                if (r < 0)
                        return r;
                answered = true;
        }
        return err_plain(err, ELOOP, "registry %s redirects without end", registry->host);
}

static bool worth_a_retry(const struct fetch_result *result)
{
        return result->status == 429 || result->status == 408 ||
               (result->status >= 500 && result->status != 501 && result->status != 505);
}

static int64_t wished_delay_s(const struct fetch_result *result)
{
        const char *after = fetch_header(result, "Retry-After");
        uint64_t seconds;
        return after && str_to_u64(after, &seconds) == 0 && seconds < 3600 ? (int64_t)seconds : 0;
}

static int perform(struct exchange *x, struct fetch_result *ret, struct err *err)
{
        unsigned attempts = x->request->once ? 1 : x->registry->pool->attempts;
        for (unsigned tried = 1;; tried++) {
                struct fetch_result result = { 0 };
                uint64_t before = x->delivered;
                int r = attempt(x, &result, err);
                bool again = r < 0 ? result.transient : worth_a_retry(&result);
                if (!again || (tried >= attempts && x->delivered == before)) {
                        if (r == 0)
                                *ret = result;
                        else
                                ret->transient = result.transient;
                        return r;
                }
                if (x->delivered > before)
                        tried = 1; /* it goes on, though in pieces */
                int64_t after_s = r < 0 ? 0 : wished_delay_s(&result);
                fetch_result_finish(&result);
                r = registry_backoff(x->registry, tried, after_s, err);
                if (r < 0)
                        return r;
        }
}

int registry_perform(struct registry *registry, const struct registry_request *request,
                     struct fetch_result *ret, struct err *err)
{
        struct exchange x = { .registry = registry, .request = request };
        int r = registry_find_scheme(registry, &x.scheme, err);
        if (r < 0)
                return r;
        r = registry_fetcher_take(registry->pool, &x.fetcher, err);
        if (r < 0)
                return r;
        r = perform(&x, ret, err);
        registry_fetcher_give(registry->pool, x.fetcher);
        return r;
}

int registry_status_error(struct registry *registry, const struct fetch_result *result,
                          const char *what, struct err *err)
{
        struct registry_error error;
        registry_error_parse(result->body, result->body_size, &error);
        const char *colon = error.text[0] ? ": " : "";
        if (result->status == 404)
                return err_plain(err, ENOENT, "%s not found in %s%s%s", what, registry->host, colon,
                                 error.text);
        if (result->status == 401 || result->status == 403)
                return err_plain(err, EACCES, "%s of %s: access denied%s%s", what, registry->shown,
                                 colon, error.text);
        if (result->status == 429)
                return err_plain(err, EAGAIN,
                                 "registry %s has had too many requests; try again later%s%s",
                                 registry->host, colon, error.text);
        return err_plain(err, EPROTO, "%s: registry %s answers %d%s%s", what, registry->host,
                         result->status, colon, error.text);
}

/* ---- manifests --------------------------------------------------------- */

void registry_manifest_finish(struct registry_manifest *manifest)
{
        free(manifest->text);
        free(manifest->media_type);
        *manifest = (struct registry_manifest){ 0 };
}

static int check_manifest(const struct fetch_result *result, const char *what,
                          struct registry_manifest *manifest, struct err *err)
{
        struct digest wanted, claimed;
        const char *header = fetch_header(result, "Docker-Content-Digest");
        digest_bytes(manifest->text, manifest->size, &manifest->digest);
        if (strchr(what, ':')) {
                int r = digest_parse(what, &wanted, err);
                if (r < 0)
                        return r;
                if (str_starts(wanted.text, "sha512:")) {
                        auto_hasher hasher = hasher_create_for(&wanted);
                        hasher_update(hasher, manifest->text, manifest->size);
                        hasher_finish(hasher, &manifest->digest);
                }
                return digest_check(&wanted, &manifest->digest, "manifest", err);
        }
        if (header && digest_parse(header, &claimed, NULL) == 0 &&
            str_starts(claimed.text, "sha256:"))
                return digest_check(&claimed, &manifest->digest, "manifest", err);
        return 0;
}

/* docker's words for what people see most. */
static int manifest_error(struct registry *registry, const struct fetch_result *result,
                          const char *what, struct err *err)
{
        struct registry_error error;
        registry_error_parse(result->body, result->body_size, &error);
        const char *separator = strchr(what, ':') ? "@" : ":";
        if (result->status == 404)
                return err_plain(err, ENOENT, "manifest for %s%s%s not found: %s", registry->shown,
                                 separator, what,
                                 error.text[0] ? error.text : "the registry does not have it");
        if (result->status == 401 || result->status == 403)
                return err_plain(err, EACCES,
                                 "pull access denied for %s, repository does not exist or may "
                                 "require 'docker login': %s",
                                 registry->shown, error.text[0] ? error.text : "access denied");
        return registry_status_error(registry, result, "manifest", err);
}

int registry_get_manifest(struct registry *registry, const char *what,
                          struct registry_manifest *ret, struct err *err)
{
        auto_free char *path = xasprintf("/v2/%s/manifests/%s", registry->repository, what);
        char *headers[] = { "Accept: " OCI_MANIFEST_ACCEPT, NULL };
        struct registry_request request = { .path = path,
                                            .headers = headers,
                                            .size_limit = OCI_MANIFEST_SIZE_MAX };
        struct fetch_result result = { 0 };
        int r = registry_perform(registry, &request, &result, err);
        if (r == -EFBIG)
                return err_wrap(err, "manifest %s of %s", what, registry->shown), r;
        if (r == -EACCES)
                return err_wrap(err,
                                "pull access denied for %s, repository does not exist or may "
                                "require 'docker login'",
                                registry->shown),
                       r;
        if (r < 0)
                return r;
        if (result.status != 200) {
                r = manifest_error(registry, &result, what, err);
        } else {
                struct registry_manifest manifest = { 0 };
                const char *type = fetch_header(&result, "Content-Type");
                manifest.media_type = type ? xstrdup(type) : NULL;
                manifest.size = result.body_size;
                manifest.text = result.body ? take_ptr(result.body) : xstrdup("");
                r = check_manifest(&result, what, &manifest, err);
                if (r == 0)
                        *ret = manifest;
                else
                        registry_manifest_finish(&manifest);
        }
        fetch_result_finish(&result);
        return r;
}

int registry_put_manifest(struct registry *registry, const char *what, const char *media_type,
                          const char *text, size_t size, struct err *err)
{
        auto_free char *path = xasprintf("/v2/%s/manifests/%s", registry->repository, what);
        auto_free char *type = xasprintf("Content-Type: %s", media_type);
        char *headers[] = { type, NULL };
        struct registry_request request = {
                .method = "PUT", .path = path, .headers = headers, .body = text, .body_size = size
        };
        struct fetch_result result = { 0 };
        int r = registry_perform(registry, &request, &result, err);
        if (r < 0)
                return r;
        if (result.status / 100 != 2)
                r = registry_status_error(registry, &result, "push of the manifest", err);
        fetch_result_finish(&result);
        return r;
}
