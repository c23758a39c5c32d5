/* Leases: what a pull, load or import in progress needs. A running operation's
 * lease is "<hash of its name>.<random>" and never expires; it is turned into
 * "<hash>" with an expiry when the operation fails, and at open for those whose
 * process died. */
#include "base/clock.h"
#include "base/rand.h"
#include "image/image_store.h"

#define HASH_LENGTH 32

static char *lease_hash(const char *name)
{
        struct digest digest;
        digest_bytes(name, strlen(name), &digest);
        return xstrndup(digest_hex(&digest), HASH_LENGTH);
}

int lease_begin(struct image_store *st, const char *name, struct lease *ret, struct err *err)
{
        char random[9];
        rand_hex(random, 8);
        auto_free char *hash = lease_hash(name);
        struct lease lease = {
                .st = st,
                .name = xasprintf("%s.%s", hash, random),
                .record.boot_id = xstrdup(st->boot_id),
        };
        int r = lease_save(&lease, err);
        if (r < 0) {
                free(lease.name);
                json_free(&lease_record_shape, &lease.record);
                return r;
        }
        *ret = lease;
        return 0;
}

static void add_text(char ***list, const struct digest *digest)
{
        if (!strv_contains(*list, digest->text))
                strv_push(list, digest->text);
}

void lease_add(struct lease *lease, const struct digest *blob, const struct digest *chain_id)
{
        if (blob)
                add_text(&lease->record.blobs, blob);
        if (chain_id)
                add_text(&lease->record.chain_ids, chain_id);
}

int lease_save_locked(struct lease *lease, struct err *err)
{
        return record_put(lease->st->store, RECORD_LEASE, lease->name, &lease_record_shape,
                          &lease->record, err);
}

int lease_save(struct lease *lease, struct err *err)
{
        pthread_mutex_lock(&lease->st->lock);
        int r = lease_save_locked(lease, err);
        pthread_mutex_unlock(&lease->st->lock);
        return r;
}

void lease_end(struct lease *lease, bool done)
{
        struct image_store *st = lease->st;
        if (!lease->name)
                return;
        auto_free char *hash = xstrndup(lease->name, HASH_LENGTH);
        pthread_mutex_lock(&st->lock);
        if (done) {
                record_delete(st->store, RECORD_LEASE, hash, NULL);
        } else {
                lease->record.expires_ns = clock_realtime_ns() + st->lease_ttl_ns;
                record_put(st->store, RECORD_LEASE, hash, &lease_record_shape, &lease->record,
                           NULL);
        }
        record_delete(st->store, RECORD_LEASE, lease->name, NULL);
        pthread_mutex_unlock(&st->lock);
        free(take_ptr(lease->name));
        json_free(&lease_record_shape, &lease->record);
}

int leases_drop_abandoned(struct image_store *st, struct err *err)
{
        struct store_value *values = NULL;
        size_t length = 0;
        int r = store_list(st->store, RECORD_LEASE, &values, &length, NULL, err);
        for (size_t i = 0; r == 0 && i < length; i++) {
                struct lease_record record = { 0 };
                r = record_decode(&values[i], &lease_record_shape, &record, err);
                if (r == 0 && record.expires_ns != 0)
                        r = store_delete(st->store, values[i].key, err);
                json_free(&lease_record_shape, &record);
        }
        store_values_free(values, length);
        return r < 0 ? r : 0;
}
