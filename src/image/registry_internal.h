/* What registry.c, registry_pool.c, registry_token.c and registry_blob.c share. */
#pragma once

#include <pthread.h>

#include "base/str.h"
#include "base/table.h"
#include "image/image.h"
#include "image/registry.h"
#include "image/registry_answers.h"

#define REGISTRY_REDIRECTS_MAX 10
#define REGISTRY_IDLE_MAX      8
#define RETRY_DELAY_MAX_NS     (10 * NS_PER_S)

struct registry_pool {
        pthread_mutex_t mutex; /* guards idle and schemes */
        struct fetcher *idle[REGISTRY_IDLE_MAX];
        size_t idle_length;
        struct table schemes; /* host -> "https" or "http" (static text) */
        char **insecure;
        char *ca_file, *certificates_dir;
        unsigned attempts;
        int64_t retry_delay_ns;
};

struct registry {
        struct registry_pool *pool;
        char *host;       /* "registry-1.docker.io", "localhost:5000" */
        char *repository; /* "library/busybox" */
        char *shown;      /* familiar name, for errors */
        bool insecure;
        char *ca_file, *client_cert, *client_key; /* of this host, or NULL */
        const struct registry_auth *auth;
        enum registry_access access;
        const atomic_bool *cancel;

        pthread_mutex_t mutex; /* guards what follows */
        const char *scheme;    /* NULL: not known yet */
        char *authorization;   /* header value; NULL: not asked for yet */
        unsigned generation;   /* of `authorization` */
        char *mount_source;    /* repository that tokens must let us read as well */
};

/* One request, with redirects, authorization and retries. */
struct registry_request {
        const char *method; /* NULL: GET */
        const char *path;   /* "/v2/…" of the registry, or NULL with `url` */
        const char *url;
        char *const *headers;
        uint64_t size_limit;
        const void *body;
        int body_fd;
        bool has_body_fd;
        uint64_t body_offset, body_size;
        void (*sent)(void *arg, uint64_t sent_bytes);
        /* Takes the body; resumed transparently. NULL: kept in the result. */
        int (*sink)(void *arg, const void *data, size_t size, struct err *err);
        uint64_t offset; /* where the body shall start */
        void *arg;
        bool once; /* no retries: the caller has its own way to go on */
};

/* 0 with any status that is not worth a retry; 401 only where no credentials help.
 * The caller finishes *ret. */
int registry_perform(struct registry *registry, const struct registry_request *request,
                     struct fetch_result *ret, struct err *err);
/* Turns a status that is not 2xx into an error about `what`. */
int registry_status_error(struct registry *registry, const struct fetch_result *result,
                          const char *what, struct err *err);

int registry_fetcher_take(struct registry_pool *pool, struct fetcher **ret, struct err *err);
void registry_fetcher_give(struct registry_pool *pool, struct fetcher *fetcher);

/* Answers a challenge; `generation` is that of the authorization that was refused.
 * 0: try again. */
int registry_authorize(struct registry *registry, struct fetcher *fetcher, const char *challenge,
                       unsigned generation, struct err *err);

/* "https" or "http"; asks the host where that is not known yet. */
int registry_find_scheme(struct registry *registry, const char **ret, struct err *err);
/* Fills TLS settings and `cancel`. `host` is whom it goes to. */
void registry_prepare(struct registry *registry, const char *host, struct fetch *fetch);
/* Waits before attempt number `attempt` (1 is the second); `after_s` is what the server
 * wishes, or 0. -ECANCELED. */
int registry_backoff(struct registry *registry, unsigned attempt, int64_t after_s, struct err *err);
