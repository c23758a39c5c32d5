/* The store in memory: a sorted array. For tests, and to show what a provider is. */
#include "base/auto.h"
#include "base/str.h"
#include "store/provider.h"

struct dummy {
        struct store_value *values; /* in order of keys */
        size_t length;
};

/* Index of the first key not below `key`. */
static size_t lower_bound(const struct dummy *dummy, const char *key)
{
        size_t low = 0, high = dummy->length;
        while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (strcmp(dummy->values[middle].key, key) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

static struct store_value *find(const struct dummy *dummy, const char *key)
{
        size_t at = lower_bound(dummy, key);
        return at < dummy->length && streq(dummy->values[at].key, key) ? &dummy->values[at] : NULL;
}

static struct store_value copy(const struct store_value *value)
{
        struct store_value result = store_value_make(value->key, value->data, value->size);
        result.create_revision = value->create_revision;
        result.mod_revision = value->mod_revision;
        result.lease = value->lease;
        return result;
}

static int dummy_get(void *self, const char *key, struct store_value *ret,
                     uint64_t *ret_mod_revision, struct err *err __attribute__((unused)))
{
        const struct store_value *value = find(self, key);
        if (!value)
                return -ENOENT;
        if (ret)
                *ret = copy(value);
        if (ret_mod_revision)
                *ret_mod_revision = value->mod_revision;
        return 0;
}

static int dummy_list(void *self, const char *prefix, uint64_t lease, struct store_value **ret,
                      size_t *ret_length, struct err *err __attribute__((unused)))
{
        const struct dummy *dummy = self;
        *ret = NULL;
        *ret_length = 0;
        for (size_t i = lower_bound(dummy, prefix); i < dummy->length; i++) {
                if (!str_starts(dummy->values[i].key, prefix))
                        break;
                if (lease == 0 || dummy->values[i].lease == lease)
                        store_values_push(ret, ret_length, copy(&dummy->values[i]));
        }
        return 0;
}

static void put(struct dummy *dummy, const struct store_op *op, uint64_t revision)
{
        struct store_value value = store_value_make(op->key, op->data, op->size);
        struct store_value *old = find(dummy, op->key);
        value.create_revision = old ? old->create_revision : revision;
        value.mod_revision = revision;
        value.lease = op->lease;
        if (old) {
                store_value_finish(old);
                *old = value;
                return;
        }
        size_t at = lower_bound(dummy, op->key);
        dummy->values = xrealloc(dummy->values, dummy->length + 1, sizeof(*dummy->values));
        memmove(&dummy->values[at + 1], &dummy->values[at],
                (dummy->length - at) * sizeof(*dummy->values));
        dummy->values[at] = value;
        dummy->length++;
}

static void remove_key(struct dummy *dummy, const char *key)
{
        struct store_value *value = find(dummy, key);
        if (!value)
                return;
        store_value_finish(value);
        size_t at = (size_t)(value - dummy->values);
        memmove(value, value + 1, (dummy->length - at - 1) * sizeof(*value));
        dummy->length--;
}

static int dummy_apply(void *self, const struct store_op *ops, size_t length, uint64_t revision,
                       struct err *err __attribute__((unused)))
{
        for (size_t i = 0; i < length; i++) {
                if (ops[i].kind == STORE_PUT)
                        put(self, &ops[i], revision);
                else
                        remove_key(self, ops[i].key);
        }
        return 0;
}

static int dummy_lease_put(void *self __attribute__((unused)),
                           const struct store_lease *lease __attribute__((unused)),
                           struct err *err __attribute__((unused)))
{
        return 0; /* store.c remembers it, and nothing outlives this process */
}

static int dummy_lease_delete(void *self __attribute__((unused)),
                              uint64_t id __attribute__((unused)),
                              struct err *err __attribute__((unused)))
{
        return 0;
}

static void dummy_close(void *self)
{
        struct dummy *dummy = self;
        store_values_free(dummy->values, dummy->length);
        free(dummy);
}

static const struct store_provider dummy_provider = {
        .name = "dummy",
        .close = dummy_close,
        .get = dummy_get,
        .list = dummy_list,
        .apply = dummy_apply,
        .lease_put = dummy_lease_put,
        .lease_delete = dummy_lease_delete,
};

int store_open_dummy(struct store **ret)
{
        store_create(&dummy_provider, new0(struct dummy), 0, NULL, 0, ret);
        return 0;
}
