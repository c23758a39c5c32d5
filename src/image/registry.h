/* The client side of the OCI distribution specification.
 *
 * A `struct registry` talks to one repository of one registry; several threads
 * may use it at the same time. Connections, and what was learnt about a host
 * (https or plain http), are kept in the pool for the next one.
 *
 * Security: an insecure registry (loopback, or named so in the settings) is tried
 * by https without verification and then by plain http; any other by verified
 * https only. Credentials go to the registry and to the token server it names,
 * never along a redirect to another host, and never over plain http unless the
 * registry is insecure. What is downloaded is verified by digest by who asked.
 *
 * Failures that may pass (connection lost, 5xx, 429) are tried again with
 * exponential backoff; a blob goes on from where it broke off.
 *
 * Errors: -ENOENT (404), -EACCES (401, 403), -ECANCELED, -EPROTO, others of
 * http/fetch.h. Texts are docker's where people know them.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "codec/digest.h"
#include "http/fetch.h"
#include "oci/reference.h"

struct image_settings;
struct registry_auth;

/* Shared by all: settings, idle connections, what is known of hosts. */
struct registry_pool;
int registry_pool_create(const struct image_settings *settings, struct registry_pool **ret,
                         struct err *err);
void registry_pool_destroy(struct registry_pool *pool);

struct registry;
enum registry_access { REGISTRY_PULL, REGISTRY_PUSH };
/* Sends nothing yet. `auth` (may be NULL) and `cancel` must outlive it. */
int registry_open(struct registry_pool *pool, const struct oci_reference *reference,
                  const struct registry_auth *auth, enum registry_access access,
                  const atomic_bool *cancel, struct registry **ret, struct err *err);
void registry_close(struct registry *registry);
/* While no other thread uses it. */
void registry_set_cancel(struct registry *registry, const atomic_bool *cancel);
DEFINE_CLEANUP(auto_registry_cleanup, struct registry *, registry_close)
#define auto_registry CLEANUP(auto_registry_cleanup) struct registry *

/* Whether the registry lets these credentials in. */
int registry_login(struct registry_pool *pool, const struct registry_auth *auth, struct err *err);

struct registry_manifest {
        char *text;
        size_t size;
        char *media_type;     /* Content-Type, or NULL */
        struct digest digest; /* computed; the same as the registry's and the one asked for */
};
void registry_manifest_finish(struct registry_manifest *manifest);
/* `what` is a tag or a digest. */
int registry_get_manifest(struct registry *registry, const char *what,
                          struct registry_manifest *ret, struct err *err);

/* Hands the bytes from `offset` on to `sink`, in order and each once, whatever
 * breaks meanwhile. `size_bytes` is the announced size. Returns the number of bytes
 * handed over in *ret_done even on failure. */
int registry_get_blob(struct registry *registry, const struct digest *digest, uint64_t size_bytes,
                      uint64_t offset,
                      int (*sink)(void *arg, const void *data, size_t size, struct err *err),
                      void *arg, struct err *err);

/* 1 it is there, 0 it is not. */
int registry_has_blob(struct registry *registry, const struct digest *digest, struct err *err);
/* Asks to take the blob from another repository of the same registry. 1 done, 0
 * not possible. */
int registry_mount_blob(struct registry *registry, const struct digest *digest,
                        const char *from_repository, struct err *err);
/* Uploads `size_bytes` of fd, in one piece up to 64 MiB, in chunks beyond; goes on
 * where a chunk broke off. */
int registry_put_blob(struct registry *registry, const struct digest *digest, int fd,
                      uint64_t size_bytes, void (*sent)(void *arg, uint64_t sent_bytes), void *arg,
                      struct err *err);
int registry_put_manifest(struct registry *registry, const char *what, const char *media_type,
                          const char *text, size_t size, struct err *err);

/* "localhost", "127.0.0.0/8", "host:port" …: is `host` one of these, or loopback? */
bool registry_is_insecure(char *const *insecure, const char *host);
