/* What is shared between conversations with registries: settings, idle
 * connections, and which hosts speak plain http. */
#include <arpa/inet.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rand.h"
#include "image/registry_internal.h"

int registry_pool_create(const struct image_settings *settings, struct registry_pool **ret,
                         struct err *err)
{
        struct registry_pool *pool = new0(struct registry_pool);
        (void)err;
        pthread_mutex_init(&pool->mutex, NULL);
        pool->insecure = strv_copy(settings->insecure_registries);
        if (settings->registry_ca_file)
                pool->ca_file = xstrdup(settings->registry_ca_file);
        pool->certificates_dir = xstrdup(settings->certificates_dir ? settings->certificates_dir
                                                                    : "/etc/docker/certs.d");
        pool->attempts = settings->attempts ? settings->attempts : 5;
        pool->retry_delay_ns = settings->retry_delay_ns ? settings->retry_delay_ns
                                                        : 500 * NS_PER_MS;
        *ret = pool;
        return 0;
}

void registry_pool_destroy(struct registry_pool *pool)
{
        if (!pool)
                return;
        for (size_t i = 0; i < pool->idle_length; i++)
                fetcher_destroy(pool->idle[i]);
        table_finish(&pool->schemes);
        strv_free(pool->insecure);
        free(pool->ca_file);
        free(pool->certificates_dir);
        pthread_mutex_destroy(&pool->mutex);
        free(pool);
}

int registry_fetcher_take(struct registry_pool *pool, struct fetcher **ret, struct err *err)
{
        struct fetcher *fetcher = NULL;
        pthread_mutex_lock(&pool->mutex);
        if (pool->idle_length > 0)
                fetcher = pool->idle[--pool->idle_length];
        pthread_mutex_unlock(&pool->mutex);
        if (!fetcher)
                return fetcher_create(ret, err);
        *ret = fetcher;
        return 0;
}

void registry_fetcher_give(struct registry_pool *pool, struct fetcher *fetcher)
{
        pthread_mutex_lock(&pool->mutex);
        if (pool->idle_length < REGISTRY_IDLE_MAX)
                pool->idle[pool->idle_length++] = take_ptr(fetcher);
        pthread_mutex_unlock(&pool->mutex);
        fetcher_destroy(fetcher);
}

/* ---- insecure ---------------------------------------------------------- */

/* Host without port and brackets. Heap. */
static char *bare_host(const char *host)
{
        if (host[0] == '[')
                return xstrndup(host + 1, strcspn(host + 1, "]"));
        const char *colon = strchr(host, ':');
        return colon && !strchr(colon + 1, ':') ? xstrndup(host, (size_t)(colon - host))
                                                : xstrdup(host);
}

static bool in_network(const char *address, const char *network)
{
        const char *slash = strchr(network, '/');
        uint32_t bits;
        if (!slash || str_to_u32(slash + 1, &bits) < 0)
                return false;
        auto_free char *base = xstrndup(network, (size_t)(slash - network));
        unsigned char a[16], b[16];
        int family = strchr(base, ':') ? AF_INET6 : AF_INET;
        size_t size = family == AF_INET6 ? 16 : 4;
        if (inet_pton(family, address, a) != 1 || inet_pton(family, base, b) != 1 ||
            bits > size * 8)
                return false;
        for (size_t i = 0; i < size && bits > 0; i++, bits -= bits < 8 ? bits : 8) {
                unsigned char mask = bits >= 8 ? 0xff : (unsigned char)(0xff << (8 - bits));
                if ((a[i] & mask) != (b[i] & mask))
                        return false;
        }
        return true;
}

bool registry_is_insecure(char *const *insecure, const char *host)
{
        auto_free char *bare = bare_host(host);
        if (streq(bare, "localhost") || in_network(bare, "127.0.0.0/8") || streq(bare, "::1"))
                return true;
        for (; insecure && *insecure; insecure++)
                if (streq(*insecure, host) || streq(*insecure, bare) || in_network(bare, *insecure))
                        return true;
        return false;
}

/* ---- opening ----------------------------------------------------------- */

static char *host_file(struct registry_pool *pool, const char *host, const char *name)
{
        auto_free char *path = xasprintf("%s/%s/%s", pool->certificates_dir, host, name);
        return access(path, R_OK) == 0 ? take_ptr(path) : NULL;
}

static struct registry *open_host(struct registry_pool *pool, const char *host)
{
        struct registry *registry = new0(struct registry);
        pthread_mutex_init(&registry->mutex, NULL);
        registry->pool = pool;
        registry->host = xstrdup(host);
        registry->insecure = registry_is_insecure(pool->insecure, host);
        registry->ca_file = host_file(pool, host, "ca.crt");
        registry->client_cert = host_file(pool, host, "client.cert");
        registry->client_key = host_file(pool, host, "client.key");
        if (!registry->ca_file && pool->ca_file)
                registry->ca_file = xstrdup(pool->ca_file);
        return registry;
}

int registry_open(struct registry_pool *pool, const struct oci_reference *reference,
                  const struct registry_auth *auth, enum registry_access access,
                  const atomic_bool *cancel, struct registry **ret, struct err *err)
{
        (void)err;
        struct registry *registry = open_host(pool, oci_reference_host(reference));
        registry->repository = xstrdup(reference->path);
        registry->shown = oci_reference_familiar_name(reference);
        registry->auth = auth;
        registry->access = access;
        registry->cancel = cancel;
        *ret = registry;
        return 0;
}

void registry_set_cancel(struct registry *registry, const atomic_bool *cancel)
{
        registry->cancel = cancel;
}

void registry_close(struct registry *registry)
{
        if (!registry)
                return;
        pthread_mutex_destroy(&registry->mutex);
        free(registry->host);
        free(registry->repository);
        free(registry->shown);
        free(registry->ca_file);
        free(registry->client_cert);
        free(registry->client_key);
        free(registry->authorization);
        free(registry->mount_source);
        free(registry);
}

/* Docker Hub's server address is a URL of the first protocol version. */
static char *login_host(const char *server)
{
        const char *host = server ? server : "";
        const char *rest = str_after(host, "https://");
        rest = rest ? rest : str_after(host, "http://");
        auto_free char *bare = xstrdup(rest ? rest : host);
        bare[strcspn(bare, "/")] = '\0';
        if (!*bare || streq(bare, "index.docker.io") || streq(bare, "docker.io"))
                return xstrdup("registry-1.docker.io");
        return take_ptr(bare);
}

int registry_login(struct registry_pool *pool, const struct registry_auth *auth, struct err *err)
{
        auto_free char *host = login_host(auth ? auth->server : NULL);
        auto_free char *check = xasprintf("https://%s/", host);
        struct registry_url url = { 0 };
        if (registry_url_parse(check, &url) < 0)
                return err_plain(err, EINVAL, "'%s' is not the address of a registry",
                                 auth->server);
        registry_url_finish(&url);
        auto_registry registry = open_host(pool, host);
        registry->auth = auth;
        registry->shown = xstrdup(host);
        struct registry_request request = { .path = "/v2/" };
        struct fetch_result result = { 0 };
        int r = registry_perform(registry, &request, &result, err);
        if (r < 0)
                return err_wrap(err, "log in to %s", host), r;
        if (result.status / 100 != 2)
                r = registry_status_error(registry, &result, "log in", err);
        fetch_result_finish(&result);
        return r;
}

/* ---- scheme ------------------------------------------------------------ */

void registry_prepare(struct registry *registry, const char *host, struct fetch *fetch)
{
        fetch->cancel = registry->cancel;
        fetch->ca_file = registry->ca_file;
        fetch->insecure_tls = streq(host, registry->host)
                                      ? registry->insecure
                                      : registry_is_insecure(registry->pool->insecure, host);
        if (streq(host, registry->host)) {
                fetch->client_cert = registry->client_cert;
                fetch->client_key = registry->client_key;
        }
}

static int probe(struct registry *registry, struct fetcher *fetcher, const char *scheme,
                 bool *ret_transient, struct err *err)
{
        auto_free char *url = xasprintf("%s://%s/v2/", scheme, registry->host);
        struct fetch fetch = { .url = url };
        struct fetch_result result = { 0 };
        registry_prepare(registry, registry->host, &fetch);
        int r = fetch_perform(fetcher, &fetch, &result, err);
        *ret_transient = result.transient;
        fetch_result_finish(&result);
        return r;
}

static int probe_schemes(struct registry *registry, struct fetcher *fetcher, const char **ret,
                         struct err *err)
{
        int r = 0;
        for (unsigned attempt = 0;; attempt++) {
                bool transient = false;
                r = probe(registry, fetcher, "https", &transient, err);
                if (r == 0) {
                        *ret = "https";
                        return 0;
                }
                if (registry->insecure && r != -ECANCELED) {
                        struct err first = { 0 };
                        if (err)
                                first = *err;
                        r = probe(registry, fetcher, "http", &transient, err);
                        if (r == 0) {
                                *ret = "http";
                                return 0;
                        }
                        if (r == -ECONNREFUSED && err)
                                *err = first;
                }
                /* Nobody there is an answer; being slow or cut off may pass. */
                if (!transient || r == -ECONNREFUSED || r == -EHOSTUNREACH || r == -ECANCELED ||
                    attempt + 1 >= registry->pool->attempts)
                        return r;
                int waited = registry_backoff(registry, attempt + 1, 0, err);
                if (waited < 0)
                        return waited;
        }
}

/* What to do about a registry that does not speak TLS, or not as somebody we trust. */
static void advise(const struct registry *registry, int r, struct err *err)
{
        if (registry->insecure)
                return;
        if (r == -EPERM)
                err_advise(err, "give isled its authority with --registry-ca, or name it with "
                                "--insecure-registry");
        else if (r == -EPROTO)
                err_advise(err, "if it is to be used by plain http, name it with "
                                "isled --insecure-registry");
}

int registry_find_scheme(struct registry *registry, const char **ret, struct err *err)
{
        struct registry_pool *pool = registry->pool;
        pthread_mutex_lock(&pool->mutex);
        const char *scheme = table_get(&pool->schemes, registry->host);
        pthread_mutex_unlock(&pool->mutex);
        if (!scheme) {
                struct fetcher *fetcher = NULL;
                int r = registry_fetcher_take(pool, &fetcher, err);
                if (r < 0)
                        return r;
                r = probe_schemes(registry, fetcher, &scheme, err);
                registry_fetcher_give(pool, fetcher);
                if (r < 0) {
                        err_wrap(err, "registry %s cannot be reached", registry->host);
                        advise(registry, r, err);
                        return r;
                }
                pthread_mutex_lock(&pool->mutex);
                table_put(&pool->schemes, registry->host, (void *)scheme);
                pthread_mutex_unlock(&pool->mutex);
        }
        pthread_mutex_lock(&registry->mutex);
        registry->scheme = scheme;
        pthread_mutex_unlock(&registry->mutex);
        *ret = scheme;
        return 0;
}

int registry_backoff(struct registry *registry, unsigned attempt, int64_t after_s, struct err *err)
{
        int64_t delay = registry->pool->retry_delay_ns;
        for (unsigned i = 1; i < attempt && delay < RETRY_DELAY_MAX_NS; i++)
                delay *= 2;
        if (after_s > 0 && after_s * NS_PER_S > delay)
                delay = after_s * NS_PER_S;
        if (delay > RETRY_DELAY_MAX_NS)
                delay = RETRY_DELAY_MAX_NS;
        delay += (int64_t)(rand_u64() % (uint64_t)(delay / 4 + 1));
        for (int64_t until = clock_monotonic_ns() + delay, now;
             (now = clock_monotonic_ns()) < until;) {
                if (registry->cancel && atomic_load(registry->cancel))
                        return err_plain(err, ECANCELED, "cancelled");
                int64_t step = until - now < 100 * NS_PER_MS ? until - now : 100 * NS_PER_MS;
                struct timespec ts = { .tv_nsec = step };
                nanosleep(&ts, NULL);
        }
        return 0;
}
