/* Blocking HTTP(S) transfers for worker threads, on libcurl: registries.
 *
 * A `struct fetcher` belongs to one thread at a time and keeps its connections
 * open between transfers. libcurl is initialised by the first one, so a process
 * that never fetches does not pay for it.
 *
 * No redirect is followed: a registry's redirect leads to another host that must
 * not see the Authorization header, so the caller repeats the request at
 * fetch_result.location with the headers fit for it. Retrying, too, is the
 * caller's; fetch_result.transient tells whether it may help.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct fetcher;
int fetcher_create(struct fetcher **ret, struct err *err);
void fetcher_destroy(struct fetcher *fetcher);

#define FETCH_BODY_LIMIT_BYTES  (4u << 20)  /* of bodies kept in the result, by default */
#define FETCH_ERROR_LIMIT_BYTES (64u << 10) /* kept of the body of a reply that is not 2xx */
#define FETCH_HEAD_LIMIT_BYTES  (64u << 10)

struct fetch_result {
        int status;
        char **headers; /* "Name: value", of the final reply */
        char *location; /* absolute URL of a 3xx or 201/202; NULL without */
        /* The body, where it was not given to `write`: replies other than 2xx always. */
        char *body;
        size_t body_size;
        uint64_t received_bytes; /* of the body */
        bool transient;          /* with a failure: trying again may help */
};

struct fetch {
        const char *method; /* NULL is GET */
        const char *url;
        char *const *headers;    /* "Name: value", NULL-terminated; may be NULL */
        const char *ca_file;     /* further trusted certificates (PEM); may be NULL */
        const char *client_cert; /* PEM; may be NULL */
        const char *client_key;
        bool insecure_tls;          /* do not verify the peer */
        uint64_t resume_offset;     /* > 0: Range from here; see `head` */
        uint64_t size_limit;        /* of the body; more is -EFBIG. 0: FETCH_BODY_LIMIT_BYTES for
                                     * bodies kept in the result, none for `write` */
        int64_t connect_timeout_ns; /* 0: 15 s */
        int64_t stall_timeout_ns;   /* less than a byte per second for so long; 0: 30 s */
        const atomic_bool *cancel;  /* may be NULL; -ECANCELED soon after it is set */

        /* What to send: either memory, or `body_size` bytes of `body_fd` from
         * `body_offset` (pread, so that a repeat is possible). */
        const void *body;
        int body_fd; /* used where `body` is NULL and has_body_fd */
        bool has_body_fd;
        uint64_t body_offset;
        uint64_t body_size;

        /* Called once when the head of a 2xx reply is complete, before `write`. With
         * resume_offset: status 206 goes on from there, 200 starts from zero. NULL ok. */
        int (*head)(void *arg, const struct fetch_result *result, struct err *err);
        /* Takes body bytes of 2xx replies; 0 or -errno, which ends the transfer.
         * NULL: the body is kept in the result. */
        int (*write)(void *arg, const void *data, size_t size, struct err *err);
        /* Bytes sent of a body, now and then; may be NULL. */
        void (*sent)(void *arg, uint64_t sent_bytes);
        void *arg;
};

/* Returns 0 for whatever status was received whole. On failure *ret holds only
 * `transient`, and the story names method, host and cause; -ETIMEDOUT, -ECONNREFUSED,
 * -EHOSTUNREACH (no such host), -EPROTO, -EPERM (certificate), -EPIPE (cut short). */
int fetch_perform(struct fetcher *fetcher, const struct fetch *fetch, struct fetch_result *ret,
                  struct err *err);
void fetch_result_finish(struct fetch_result *result);
/* A header's value, name in any case; NULL where absent. */
const char *fetch_header(const struct fetch_result *result, const char *name);
