/* The state store: revision-numbered keys, as in etcd.
 *
 * Keys are paths ("instances/4f0c…"), values are bytes. Every successful
 * transaction gets the next revision and stamps it on the keys it puts. Writers
 * compare and set by guards on the revision they read, so there are no locks to
 * hold: -EAGAIN means read again and decide anew.
 *
 * Providers: `sqlite`, a file that survives kill -9 whole (WAL, synchronous=NORMAL:
 * a power cut may lose the last transactions, never half of one); `dummy`, memory.
 * What is common to both (limits, guards, watches, leases) is in store.c.
 *
 * Thread-safe: one mutex inside. Watch callbacks run without it.
 *
 * Limits: key STORE_KEY_LIMIT_BYTES of printable ASCII, value STORE_VALUE_LIMIT_BYTES, operations
 * per transaction STORE_OPS_LIMIT.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define STORE_KEY_LIMIT_BYTES   512u
#define STORE_VALUE_LIMIT_BYTES (1536u << 10)
#define STORE_OPS_LIMIT         128u
#define STORE_HISTORY_LENGTH    1024u      /* events kept in memory for late watchers… */
#define STORE_HISTORY_BYTES     (1u << 20) /* …and their size */

struct loop;
struct store;

/* Creates the file (0600) where it is missing. -EBUSY where another process has it
 * open, -EUCLEAN where it is damaged, -EMEDIUMTYPE where it is something else or of
 * a newer version; the story names the file and the remedy. */
int store_open_sqlite(const char *path, struct store **ret, struct err *err);
int store_open_dummy(struct store **ret);
/* Watches must be cancelled before. NULL is fine. */
void store_close(struct store *store);

/* --- reading --- */

struct store_value {
        char *key;
        char *data; /* followed by a NUL that `size` does not count */
        size_t size;
        uint64_t create_revision, mod_revision;
        uint64_t lease; /* 0: none */
};

void store_value_finish(struct store_value *value);
void store_values_free(struct store_value *values, size_t length);

/* -ENOENT, with no story worth telling, where there is no such key. */
int store_get(struct store *store, const char *key, struct store_value *ret, struct err *err);
/* All keys that start with `prefix`, in byte order. *ret is NULL when there are none.
 * ret_revision (may be NULL): what the list is as of; watch from the next one. */
int store_list(struct store *store, const char *prefix, struct store_value **ret,
               size_t *ret_length, uint64_t *ret_revision, struct err *err);
/* The last revision given out; 0 for a fresh store. */
uint64_t store_revision(struct store *store);

/* --- writing --- */

enum store_op_kind { STORE_PUT, STORE_DELETE };

struct store_op {
        enum store_op_kind kind;
        const char *key;
        const void *data; /* STORE_PUT */
        size_t size;
        uint64_t lease; /* STORE_PUT: the key disappears with it; 0: none */
};

struct store_guard {
        const char *key;
        uint64_t mod_revision; /* what it must be; 0: must not exist */
};

/* All or nothing. -EAGAIN where a guard fails (err names the key). Deleting what is
 * not there is fine. ret_revision may be NULL. A key may occur once among the ops. */
int store_txn(struct store *store, const struct store_guard *guards, size_t guards_length,
              const struct store_op *ops, size_t ops_length, uint64_t *ret_revision,
              struct err *err);

/* Shorthands for one key without a guard. */
int store_put(struct store *store, const char *key, const void *data, size_t size, struct err *err);
int store_delete(struct store *store, const char *key, struct err *err);

/* --- watching --- */

struct store_event {
        enum store_op_kind kind;
        const char *key;
        const char *data; /* STORE_PUT; NUL-terminated beyond `size` */
        size_t size;
        uint64_t revision;
};

struct store_watch;

/* Calls `changed` for every change of keys under `prefix` with revision >=
 * `from_revision` (0: from now on), in order of revision, each once. With a `loop`,
 * on its thread, soon after; without, on the thread that calls store_watch_poll().
 * -ESTALE where that far back is no longer known, also after a restart: list, and
 * watch from the list's revision + 1. A watcher that falls STORE_HISTORY_LENGTH
 * events behind gets `changed(arg, NULL)` once and nothing more: same remedy. */
int store_watch(struct store *store, struct loop *loop, const char *prefix, uint64_t from_revision,
                void (*changed)(void *arg, const struct store_event *event), void *arg,
                struct store_watch **ret, struct err *err);
/* On the loop's (or poller's) thread, also from inside `changed`; no call comes after. */
void store_watch_cancel(struct store_watch *watch);
/* Delivers what is due; returns how many events. */
size_t store_watch_poll(struct store_watch *watch);

/* --- leases --- */

/* A promise to come back within `ttl_ns`. Keys put with the lease are deleted when it
 * is not kept. Leases survive a restart with their whole ttl before them. */
int store_lease_grant(struct store *store, int64_t ttl_ns, uint64_t *ret_lease, struct err *err);
/* -ENOENT where it has run out. */
int store_lease_keep(struct store *store, uint64_t lease, struct err *err);
/* Ends it now, and its keys. */
int store_lease_revoke(struct store *store, uint64_t lease, struct err *err);
/* Drops what has run out. Called by every read and write as well, so that an expired
 * key is never seen; a timer should call it for the watchers' sake. Returns the time
 * until the next lease runs out, or -1 without leases. */
int64_t store_lease_expire(struct store *store);
