#include "store/store.h"

#include <inttypes.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/rand.h"
#include "base/str.h"
#include "loop/loop.h"
#include "store/provider.h"

#define LEASES_LIMIT     10000u
#define TTL_LIMIT_NS     (INT64_MAX / 4) /* 73 years */
#define DELIVERIES_LIMIT 256u            /* per round of the loop, so that others get their turn */

/* Theory of operation. Everything that must be the same whatever the provider happens
 * here, under one mutex: a transaction checks its guards against the provider, is
 * applied by it, and is then published as events. An event is one object shared by the
 * history (for watchers that name a past revision) and by the queues of the watches it
 * concerns; the last reference frees it. Watches are served outside of the mutex, on
 * their loop (rung by an eventfd) or by whoever polls them. */

struct event {
        unsigned references; /* guarded by the store's mutex */
        struct store_event event;
        char *key, *data;
};

struct queued {
        struct queued *next;
        struct event *event; /* NULL: events were lost */
};

struct store_watch {
        struct list node;
        struct store *store;
        char *prefix;
        uint64_t from_revision;
        void (*changed)(void *arg, const struct store_event *event);
        void *arg;
        int wake_fd; /* eventfd, or -1 without a loop */
        struct loop_source *source;
        /* Guarded by the mutex. */
        struct queued *first, *last;
        size_t queued_length;
        bool lost; /* the marker is queued: nothing more comes */
        /* Of the delivering thread. */
        bool delivering, cancelled;
};

struct store {
        const struct store_provider *provider;
        void *self;
        pthread_mutex_t lock; /* guards all below, and calls of the provider */
        uint64_t revision;

        struct store_lease *leases;
        size_t leases_length;
        int64_t next_deadline_ns; /* of the leases; INT64_MAX without */

        struct list watches;
        struct event *history[STORE_HISTORY_LENGTH]; /* ring */
        size_t history_first, history_length;
        size_t history_bytes;
        uint64_t history_from; /* events of this revision and later are all there */
};

/* --- values --- */

struct store_value store_value_make(const char *key, const void *data, size_t size)
{
        struct store_value value = { .key = xstrdup(key), .data = xmalloc(size + 1), .size = size };
        if (size > 0)
                memcpy(value.data, data, size);
        value.data[size] = '\0';
        return value;
}

void store_values_push(struct store_value **values, size_t *length, struct store_value value)
{
        /* Grows by doubling: capacity is the next power of two. */
        if ((*length & (*length - 1)) == 0 || *length == 0)
                *values = xrealloc(*values, *length > 0 ? *length * 2 : 1, sizeof(**values));
        (*values)[(*length)++] = value;
}

void store_value_finish(struct store_value *value)
{
        free(value->key);
        free(value->data);
        *value = (struct store_value){ 0 };
}

void store_values_free(struct store_value *values, size_t length)
{
        for (size_t i = 0; i < length; i++)
                store_value_finish(&values[i]);
        free(values);
}

/* --- events --- */

static struct event *event_create(const struct store_op *op, uint64_t revision)
{
        struct event *event = new0(struct event);
        event->references = 1;
        event->key = xstrdup(op->key);
        event->event = (struct store_event){ .kind = op->kind,
                                             .key = event->key,
                                             .revision = revision };
        if (op->kind == STORE_PUT) {
                event->data = xmalloc(op->size + 1);
                if (op->size > 0)
                        memcpy(event->data, op->data, op->size);
                event->data[op->size] = '\0';
                event->event.data = event->data;
                event->event.size = op->size;
        }
        return event;
}

static void event_unref(struct event *event)
{
        if (!event || --event->references > 0)
                return;
        free(event->key);
        free(event->data);
        free(event);
}

static size_t event_bytes(const struct event *event)
{
        return sizeof(*event) + strlen(event->key) + event->event.size;
}

static void history_drop_first(struct store *store)
{
        struct event *event = store->history[store->history_first];
        store->history_first = (store->history_first + 1) % STORE_HISTORY_LENGTH;
        store->history_length--;
        store->history_bytes -= event_bytes(event);
        store->history_from = event->event.revision + 1;
        event_unref(event);
}

static void history_add(struct store *store, struct event *event)
{
        event->references++;
        if (store->history_length == STORE_HISTORY_LENGTH)
                history_drop_first(store);
        size_t at = (store->history_first + store->history_length++) % STORE_HISTORY_LENGTH;
        store->history[at] = event;
        store->history_bytes += event_bytes(event);
        while (store->history_bytes > STORE_HISTORY_BYTES && store->history_length > 0)
                history_drop_first(store);
}

/* --- watches --- */

static void queue_push(struct store_watch *watch, struct event *event)
{
        struct queued *queued = new0(struct queued);
        queued->event = event;
        if (event)
                event->references++;
        if (watch->last)
                watch->last->next = queued;
        else
                watch->first = queued;
        watch->last = queued;
        watch->queued_length++;
}

static struct queued *queue_pop(struct store_watch *watch)
{
        struct queued *queued = watch->first;
        if (queued) {
                watch->first = queued->next;
                if (!watch->first)
                        watch->last = NULL;
                watch->queued_length--;
        }
        return queued;
}

static void queue_clear(struct store_watch *watch)
{
        for (struct queued *queued; (queued = queue_pop(watch));) {
                event_unref(queued->event);
                free(queued);
        }
}

static void watch_ring(struct store_watch *watch)
{
        uint64_t one = 1;
        if (watch->wake_fd >= 0)
                while (write(watch->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
                        ;
}

static void watch_offer(struct store_watch *watch, struct event *event)
{
        if (watch->lost || event->event.revision < watch->from_revision ||
            !str_starts(event->key, watch->prefix))
                return;
        if (watch->queued_length >= STORE_HISTORY_LENGTH) {
                queue_clear(watch);
                watch->lost = true;
                event = NULL;
        }
        queue_push(watch, event);
        if (watch->queued_length == 1)
                watch_ring(watch);
}

static void publish(struct store *store, const struct store_op *op, uint64_t revision)
{
        struct event *event = event_create(op, revision);
        history_add(store, event);
        list_for_each (struct store_watch, watch, &store->watches, node)
                watch_offer(watch, event);
        event_unref(event);
}

static void watch_free(struct store_watch *watch)
{
        free(watch->prefix);
        free(watch);
}

size_t store_watch_poll(struct store_watch *watch)
{
        struct store *store = watch->store;
        size_t delivered = 0;
        watch->delivering = true;
        while (!watch->cancelled && delivered < DELIVERIES_LIMIT) {
                pthread_mutex_lock(&store->lock);
                struct queued *queued = queue_pop(watch);
                pthread_mutex_unlock(&store->lock);
                if (!queued)
                        break;
                watch->changed(watch->arg, queued->event ? &queued->event->event : NULL);
                delivered++;
                pthread_mutex_lock(&store->lock);
                event_unref(queued->event);
                /* Ring again for what this round leaves behind. */
                if (!watch->cancelled && delivered == DELIVERIES_LIMIT && watch->first)
                        watch_ring(watch);
                pthread_mutex_unlock(&store->lock);
                free(queued);
        }
        watch->delivering = false;
        if (watch->cancelled)
                watch_free(watch);
        return delivered;
}

static void watch_ready(void *arg, uint32_t events __attribute__((unused)))
{
        struct store_watch *watch = arg;
        uint64_t count;
        /* Before the queue is looked at, so that no ring is lost. */
        if (read(watch->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
                return;
        store_watch_poll(watch);
}

static int watch_attach(struct store_watch *watch, struct loop *loop, struct err *err)
{
        watch->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (watch->wake_fd < 0)
                return err_set(err, errno, "watch '%s'", watch->prefix);
        return loop_io(loop, watch->wake_fd, EPOLLIN, watch_ready, watch, &watch->source, err);
}

int store_watch(struct store *store, struct loop *loop, const char *prefix, uint64_t from_revision,
                void (*changed)(void *arg, const struct store_event *event), void *arg,
                struct store_watch **ret, struct err *err)
{
        struct store_watch *watch = new0(struct store_watch);
        watch->store = store;
        watch->prefix = xstrdup(prefix);
        watch->from_revision = from_revision;
        watch->changed = changed;
        watch->arg = arg;
        watch->wake_fd = -1;
        int r = loop ? watch_attach(watch, loop, err) : 0;

        pthread_mutex_lock(&store->lock);
        if (r == 0 && from_revision > 0 && from_revision < store->history_from)
                r = err_plain(err, ESTALE,
                              "changes since revision %" PRIu64
                              " are not known any more (the first "
                              "known is %" PRIu64 "): list, and watch from there",
                              from_revision, store->history_from);
        if (r == 0) {
                for (size_t i = 0; from_revision > 0 && i < store->history_length; i++) {
                        size_t at = (store->history_first + i) % STORE_HISTORY_LENGTH;
                        watch_offer(watch, store->history[at]);
                }
                list_append(&store->watches, &watch->node);
        }
        pthread_mutex_unlock(&store->lock);

        if (r < 0) {
                loop_source_destroy(watch->source);
                close_fd(&watch->wake_fd);
                watch_free(watch);
                return r;
        }
        *ret = watch;
        return 0;
}

void store_watch_cancel(struct store_watch *watch)
{
        if (!watch)
                return;
        pthread_mutex_lock(&watch->store->lock);
        list_remove(&watch->node);
        queue_clear(watch);
        pthread_mutex_unlock(&watch->store->lock);
        loop_source_destroy(take_ptr(watch->source));
        close_fd(&watch->wake_fd);
        watch->cancelled = true;
        if (!watch->delivering)
                watch_free(watch);
}

/* --- leases, with the mutex held --- */

/* Sums with the clock stay far from the end of int64_t. */
static int64_t clamp_ttl(int64_t ttl_ns)
{
        return ttl_ns < TTL_LIMIT_NS ? ttl_ns : TTL_LIMIT_NS;
}

static struct store_lease *lease_find(const struct store *store, uint64_t id)
{
        for (size_t i = 0; i < store->leases_length; i++)
                if (store->leases[i].id == id)
                        return &store->leases[i];
        return NULL;
}

static void lease_deadlines_changed(struct store *store)
{
        store->next_deadline_ns = INT64_MAX;
        for (size_t i = 0; i < store->leases_length; i++)
                if (store->leases[i].deadline_ns < store->next_deadline_ns)
                        store->next_deadline_ns = store->leases[i].deadline_ns;
}

static int apply(struct store *store, const struct store_op *ops, size_t length, struct err *err)
{
        int r = store->provider->apply(store->self, ops, length, store->revision + 1, err);
        if (r < 0)
                return r;
        store->revision++;
        for (size_t i = 0; i < length; i++)
                publish(store, &ops[i], store->revision);
        return 0;
}

/* Deletes the lease's keys, then the lease: a crash in between leaves an empty lease. */
static int lease_end(struct store *store, struct store_lease *lease, struct err *err)
{
        struct store_value *values;
        size_t length;
        int r = store->provider->list(store->self, "", lease->id, &values, &length, err);
        if (r < 0)
                return r;
        for (size_t done = 0; done < length && r == 0;) {
                struct store_op ops[STORE_OPS_LIMIT];
                size_t count = 0;
                for (; count < STORE_OPS_LIMIT && done < length; count++, done++)
                        ops[count] = (struct store_op){ .kind = STORE_DELETE,
                                                        .key = values[done].key };
                r = apply(store, ops, count, err);
        }
        store_values_free(values, length);
        if (r == 0)
                r = store->provider->lease_delete(store->self, lease->id, err);
        if (r < 0)
                return r;
        *lease = store->leases[--store->leases_length];
        lease_deadlines_changed(store);
        return 0;
}

static void leases_expire(struct store *store)
{
        if (store->next_deadline_ns == INT64_MAX)
                return;
        int64_t now_ns = clock_monotonic_ns();
        if (now_ns < store->next_deadline_ns)
                return;
        for (size_t i = 0; i < store->leases_length;) {
                if (store->leases[i].deadline_ns > now_ns)
                        i++;
                else if (lease_end(store, &store->leases[i], NULL) < 0)
                        return; /* the disk is full or broken: the next call tries again */
        }
        lease_deadlines_changed(store);
}

static int lock_current(struct store *store)
{
        pthread_mutex_lock(&store->lock);
        leases_expire(store);
        return 0;
}

int store_lease_grant(struct store *store, int64_t ttl_ns, uint64_t *ret_lease, struct err *err)
{
        if (ttl_ns <= 0)
                return err_plain(err, EINVAL, "a lease must last longer than no time");
        struct store_lease lease = { .ttl_ns = clamp_ttl(ttl_ns) };
        lock_current(store);
        do {
                lease.id = rand_u64() >> 1; /* SQLite's integers are signed */
        } while (lease.id == 0 || lease_find(store, lease.id));
        int r = store->leases_length >= LEASES_LIMIT
                        ? err_plain(err, ENOSPC, "more than %u leases", LEASES_LIMIT)
                        : store->provider->lease_put(store->self, &lease, err);
        if (r == 0) {
                lease.deadline_ns = clock_monotonic_ns() + lease.ttl_ns;
                store->leases = xrealloc(store->leases, store->leases_length + 1,
                                         sizeof(*store->leases));
                store->leases[store->leases_length++] = lease;
                lease_deadlines_changed(store);
                *ret_lease = lease.id;
        }
        pthread_mutex_unlock(&store->lock);
        return r;
}

int store_lease_keep(struct store *store, uint64_t lease, struct err *err)
{
        lock_current(store);
        struct store_lease *found = lease_find(store, lease);
        if (found) {
                found->deadline_ns = clock_monotonic_ns() + found->ttl_ns;
                lease_deadlines_changed(store);
        }
        pthread_mutex_unlock(&store->lock);
        return found ? 0 : err_plain(err, ENOENT, "lease %" PRIu64 " has run out", lease);
}

int store_lease_revoke(struct store *store, uint64_t lease, struct err *err)
{
        lock_current(store);
        struct store_lease *found = lease_find(store, lease);
        int r = found ? lease_end(store, found, err)
                      : err_plain(err, ENOENT, "lease %" PRIu64 " has run out", lease);
        pthread_mutex_unlock(&store->lock);
        return r;
}

int64_t store_lease_expire(struct store *store)
{
        lock_current(store);
        int64_t next_ns = store->next_deadline_ns;
        pthread_mutex_unlock(&store->lock);
        if (next_ns == INT64_MAX)
                return -1;
        int64_t left_ns = next_ns - clock_monotonic_ns();
        return left_ns > 0 ? left_ns : 0;
}

/* --- reading and writing --- */

int store_get(struct store *store, const char *key, struct store_value *ret, struct err *err)
{
        lock_current(store);
        int r = store->provider->get(store->self, key, ret, NULL, err);
        pthread_mutex_unlock(&store->lock);
        return r == -ENOENT ? err_plain(err, ENOENT, "no such key: %s", key) : r;
}

int store_list(struct store *store, const char *prefix, struct store_value **ret,
               size_t *ret_length, uint64_t *ret_revision, struct err *err)
{
        struct store_value *values;
        size_t length;
        lock_current(store);
        uint64_t revision = store->revision;
        int r = store->provider->list(store->self, prefix, 0, &values, &length, err);
        pthread_mutex_unlock(&store->lock);
        if (r < 0)
                return r;
        *ret = values;
        *ret_length = length;
        if (ret_revision)
                *ret_revision = revision;
        return 0;
}

uint64_t store_revision(struct store *store)
{
        pthread_mutex_lock(&store->lock);
        uint64_t revision = store->revision;
        pthread_mutex_unlock(&store->lock);
        return revision;
}

static int check_key(const char *key, struct err *err)
{
        size_t length = 0;
        for (; key && key[length]; length++)
                if (key[length] < 0x21 || key[length] > 0x7e)
                        return err_plain(err, EINVAL, "store key has a byte 0x%02x in it",
                                         (unsigned char)key[length]);
        if (length == 0 || length > STORE_KEY_LIMIT_BYTES)
                return err_plain(err, EINVAL, "store key of %zu bytes, must be 1 to %u", length,
                                 STORE_KEY_LIMIT_BYTES);
        return 0;
}

static int check_ops(const struct store_op *ops, size_t length, struct err *err)
{
        if (length > STORE_OPS_LIMIT)
                return err_plain(err, E2BIG, "%zu operations in a transaction, at most %u", length,
                                 STORE_OPS_LIMIT);
        for (size_t i = 0; i < length; i++) {
                int r = check_key(ops[i].key, err);
                if (r < 0)
                        return r;
                if (ops[i].kind == STORE_PUT && ops[i].size > STORE_VALUE_LIMIT_BYTES)
                        return err_plain(err, E2BIG, "value of %s has %zu bytes, at most %u",
                                         ops[i].key, ops[i].size, STORE_VALUE_LIMIT_BYTES);
                for (size_t j = 0; j < i; j++)
                        if (streq(ops[i].key, ops[j].key))
                                return err_plain(err, EINVAL, "key %s twice in a transaction",
                                                 ops[i].key);
        }
        return 0;
}

static int check_guards(struct store *store, const struct store_guard *guards, size_t length,
                        struct err *err)
{
        for (size_t i = 0; i < length; i++) {
                uint64_t revision = 0;
                int r = store->provider->get(store->self, guards[i].key, NULL, &revision, err);
                if (r < 0 && r != -ENOENT)
                        return r;
                if (revision == guards[i].mod_revision)
                        continue;
                if (guards[i].mod_revision == 0)
                        return err_plain(err, EAGAIN, "%s exists already", guards[i].key);
                return err_plain(err, EAGAIN, "%s was %s meanwhile", guards[i].key,
                                 revision > 0 ? "changed" : "deleted");
        }
        return 0;
}

/* Leaves out deletions of what is not there; they are no change. */
static int effective_ops(struct store *store, const struct store_op *ops, size_t length,
                         struct store_op *ret_ops, size_t *ret_length, struct err *err)
{
        size_t count = 0;
        for (size_t i = 0; i < length; i++) {
                if (ops[i].kind == STORE_DELETE) {
                        int r = store->provider->get(store->self, ops[i].key, NULL, NULL, err);
                        if (r == -ENOENT)
                                continue;
                        if (r < 0)
                                return r;
                } else if (ops[i].lease != 0 && !lease_find(store, ops[i].lease)) {
                        return err_plain(err, ENOENT, "lease of %s has run out", ops[i].key);
                }
                ret_ops[count++] = ops[i];
        }
        *ret_length = count;
        return 0;
}

int store_txn(struct store *store, const struct store_guard *guards, size_t guards_length,
              const struct store_op *ops, size_t ops_length, uint64_t *ret_revision,
              struct err *err)
{
        struct store_op effective[STORE_OPS_LIMIT];
        size_t length = 0;
        int r = check_ops(ops, ops_length, err);
        if (r < 0)
                return r;
        lock_current(store);
        r = check_guards(store, guards, guards_length, err);
        if (r == 0)
                r = effective_ops(store, ops, ops_length, effective, &length, err);
        if (r == 0 && length > 0)
                r = apply(store, effective, length, err);
        if (r == 0 && ret_revision)
                *ret_revision = store->revision;
        pthread_mutex_unlock(&store->lock);
        return r;
}

int store_put(struct store *store, const char *key, const void *data, size_t size, struct err *err)
{
        const struct store_op op = { .kind = STORE_PUT, .key = key, .data = data, .size = size };
        return store_txn(store, NULL, 0, &op, 1, NULL, err);
}

int store_delete(struct store *store, const char *key, struct err *err)
{
        const struct store_op op = { .kind = STORE_DELETE, .key = key };
        return store_txn(store, NULL, 0, &op, 1, NULL, err);
}

/* --- the store --- */

void store_create(const struct store_provider *provider, void *self, uint64_t revision,
                  struct store_lease *leases, size_t leases_length, struct store **ret)
{
        struct store *store = new0(struct store);
        store->provider = provider;
        store->self = self;
        store->revision = revision;
        store->history_from = revision + 1;
        store->leases = leases;
        store->leases_length = leases_length;
        int64_t now_ns = clock_monotonic_ns();
        for (size_t i = 0; i < leases_length; i++)
                leases[i].deadline_ns = now_ns + clamp_ttl(leases[i].ttl_ns);
        lease_deadlines_changed(store);
        list_init(&store->watches);
        pthread_mutex_init(&store->lock, NULL);
        *ret = store;
}

void store_close(struct store *store)
{
        if (!store)
                return;
        while (store->history_length > 0)
                history_drop_first(store);
        store->provider->close(store->self);
        free(store->leases);
        pthread_mutex_destroy(&store->lock);
        free(store);
}
