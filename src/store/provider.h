/* What store.c asks of a provider. All calls come under the store's mutex. */
#pragma once

#include "store/store.h"

struct store_lease {
        uint64_t id;
        int64_t ttl_ns;
        int64_t deadline_ns; /* monotonic; store.c's, providers keep the other two */
};

struct store_provider {
        const char *name;
        void (*close)(void *self);
        /* -ENOENT without a story. *ret_mod_revision alone: ret may be NULL. */
        int (*get)(void *self, const char *key, struct store_value *ret, uint64_t *ret_mod_revision,
                   struct err *err);
        /* Keys with the prefix, or, where lease is not 0, of that lease; in byte order. */
        int (*list)(void *self, const char *prefix, uint64_t lease, struct store_value **ret,
                    size_t *ret_length, struct err *err);
        /* Does all operations and records the revision, or nothing. */
        int (*apply)(void *self, const struct store_op *ops, size_t length, uint64_t revision,
                     struct err *err);
        int (*lease_put)(void *self, const struct store_lease *lease, struct err *err);
        int (*lease_delete)(void *self, uint64_t id, struct err *err);
};

/* Takes over `self` and the leases (heap). */
void store_create(const struct store_provider *provider, void *self, uint64_t revision,
                  struct store_lease *leases, size_t leases_length, struct store **ret);

/* A value to be filled in; key and data are copied. */
struct store_value store_value_make(const char *key, const void *data, size_t size);
void store_values_push(struct store_value **values, size_t *length, struct store_value value);
