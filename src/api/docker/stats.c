/* Resource use: one sample, or one every second. */
#include "engine/stats.h"

#include <stdlib.h>

#include "api/reply.h"
#include "api/routes.h"
#include "base/clock.h"
#include "base/str.h"
#include "loop/loop.h"

#define INTERVAL_NS       NS_PER_S
#define QUEUE_LIMIT_BYTES (256u << 10)

/* One client. It lives until the client has gone or has its answer, and no sample
 * is on its way. */
struct watch {
        struct http_request *request; /* NULL: over */
        struct instance *instance;    /* referenced */
        struct loop_source *timer;
        bool stream, one_shot, sampling, begun;
        int64_t previous_ns;
        struct json_object *previous_cpu; /* cpu_stats of the sample before */
};

static void watch_free(struct watch *watch)
{
        loop_source_destroy(watch->timer);
        json_object_put(watch->previous_cpu);
        instance_unref(watch->instance);
        free(watch);
}

static struct json_object *cpu_json(const struct instance_stats *stats)
{
        struct json_object *o = json_object_new_object();
        struct json_object *usage = put_object(o, "cpu_usage");
        put_int(usage, "total_usage", (int64_t)stats->cpu_total_ns);
        if (stats->cpu_each_ns) {
                struct json_object *each = put_array(usage, "percpu_usage");
                for (size_t i = 0; i < stats->cpu_each_length; i++)
                        push_json(each, json_object_new_uint64(stats->cpu_each_ns[i]));
        }
        put_int(usage, "usage_in_kernelmode", (int64_t)stats->cpu_kernel_ns);
        put_int(usage, "usage_in_usermode", (int64_t)stats->cpu_user_ns);
        if (stats->read_ns) {
                put_int(o, "system_cpu_usage", (int64_t)stats->system_cpu_ns);
                put_int(o, "online_cpus", stats->cpus_online);
        }
        struct json_object *throttling = put_object(o, "throttling_data");
        put_int(throttling, "periods", (int64_t)stats->throttle_periods);
        put_int(throttling, "throttled_periods", (int64_t)stats->throttled_periods);
        put_int(throttling, "throttled_time", (int64_t)stats->throttled_ns);
        return o;
}

static void put_memory(struct json_object *object, const struct instance_stats *stats)
{
        struct json_object *memory = put_object(object, "memory_stats");
        if (!stats->read_ns)
                return;
        put_int(memory, "usage", (int64_t)stats->memory_bytes);
        if (!stats->cgroup_v2) {
                put_int(memory, "max_usage", (int64_t)stats->memory_max_bytes);
                put_int(memory, "failcnt", (int64_t)stats->memory_failures);
        }
        struct json_object *detail = put_object(memory, "stats");
        for (char **entry = stats->memory_detail; entry && *entry; entry++) {
                const char *value;
                auto_free char *name = json_map_split(*entry, &value);
                uint64_t number = 0;
                if (str_to_u64(value, &number) >= 0)
                        json_object_object_add(detail, name, json_object_new_uint64(number));
        }
        put_int(memory, "limit", (int64_t)stats->memory_limit_bytes);
}

static void push_blkio(struct json_object *array, const struct instance_blkio *blkio,
                       uint64_t value)
{
        struct json_object *entry = json_object_new_object();
        put_int(entry, "major", (int64_t)blkio->major);
        put_int(entry, "minor", (int64_t)blkio->minor);
        put_string(entry, "op", blkio->op);
        put_int(entry, "value", (int64_t)value);
        push_json(array, entry);
}

static void put_blkio(struct json_object *object, const struct instance_stats *stats)
{
        static const char *const unknown[] = {
                "io_queue_recursive",  "io_service_time_recursive", "io_wait_time_recursive",
                "io_merged_recursive", "io_time_recursive",         "sectors_recursive"
        };
        struct json_object *o = put_object(object, "blkio_stats");
        struct json_object *bytes = put_array(o, "io_service_bytes_recursive");
        struct json_object *operations = put_array(o, "io_serviced_recursive");
        for (size_t i = 0; i < stats->blkio_length; i++) {
                push_blkio(bytes, &stats->blkio[i], stats->blkio[i].bytes);
                push_blkio(operations, &stats->blkio[i], stats->blkio[i].operations);
        }
        for (size_t i = 0; i < ELEMENTS(unknown); i++)
                put_json(o, unknown[i], NULL);
}

static struct json_object *stats_json(const struct watch *watch, const struct instance_stats *stats,
                                      struct json_object *cpu)
{
        static const struct instance_stats nothing = { 0 };
        auto_free char *name = xasprintf("/%s", watch->instance->name);
        struct json_object *o = json_object_new_object();
        put_time(o, "read", stats->read_ns);
        put_time(o, "preread", watch->previous_ns);
        struct json_object *pids = put_object(o, "pids_stats");
        if (stats->read_ns) {
                put_int(pids, "current", (int64_t)stats->pids);
                if (stats->pids_limit)
                        put_int(pids, "limit", (int64_t)stats->pids_limit);
        }
        put_blkio(o, stats);
        put_int(o, "num_procs", 0);
        put_object(o, "storage_stats");
        put_json(o, "cpu_stats", json_object_get(cpu));
        put_json(o, "precpu_stats",
                 watch->previous_cpu ? json_object_get(watch->previous_cpu) : cpu_json(&nothing));
        put_memory(o, stats);
        put_string(o, "name", name);
        put_string(o, "id", watch->instance->id);
        put_object(o, "networks");
        return o;
}

static void watch_end(struct watch *watch)
{
        http_request_on_close(watch->request, NULL, NULL);
        if (watch->begun)
                http_stream_end(watch->request);
        watch_free(watch);
}

static void watch_write(struct watch *watch, struct json_object *record)
{
        if (!watch->stream) {
                http_reply_json(watch->request, 200, record);
                return;
        }
        if (!watch->begun)
                http_stream_begin(watch->request, 200, "application/json");
        watch->begun = true;
        if (http_stream_write(watch->request, "", 0) < QUEUE_LIMIT_BYTES)
                stream_json(watch->request, record);
        else /* a client that does not read misses samples */
                json_object_put(record);
}

static void watch_fail(struct watch *watch, int r, const struct err *err)
{
        if (!watch->begun) {
                http_request_on_close(watch->request, NULL, NULL);
                api_fail(watch->request, r, err);
                watch_free(watch);
        } else {
                watch_end(watch);
        }
}

static void sampled(void *arg, int r, const struct err *err, const struct instance_stats *stats)
{
        struct watch *watch = arg;
        watch->sampling = false;
        if (!watch->request) {
                watch_free(watch);
                return;
        }
        if (r < 0) {
                watch_fail(watch, r, err);
                return;
        }
        if (watch->instance->state == INSTANCE_REMOVED && watch->begun) {
                watch_end(watch);
                return;
        }
        /* Without a stream the answer is the second of two samples a second apart, so
         * that the use of CPU can be told; a stopped instance has none. */
        bool last = !watch->stream && (watch->one_shot || watch->previous_cpu || !stats->read_ns);
        struct json_object *cpu = cpu_json(stats);
        if (last)
                http_request_on_close(watch->request, NULL, NULL);
        if (watch->stream || last)
                watch_write(watch, stats_json(watch, stats, cpu));
        json_object_put(watch->previous_cpu);
        watch->previous_cpu = cpu;
        watch->previous_ns = stats->read_ns;
        if (last)
                watch_free(watch);
        else
                loop_timer_arm(watch->timer, INTERVAL_NS);
}

static void sample(void *arg)
{
        struct watch *watch = arg;
        watch->sampling = true;
        instance_sample(watch->instance, sampled, watch);
}

static void watch_gone(void *arg)
{
        struct watch *watch = arg;
        watch->request = NULL;
        if (!watch->sampling)
                watch_free(watch);
}

static void stats_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        struct err err = { 0 };
        struct instance *instance = api_instance(api, request);
        if (!instance)
                return;
        struct watch *watch = new0(struct watch);
        watch->request = request;
        watch->stream = http_request_query_bool(request, "stream", true);
        watch->one_shot = http_request_query_bool(request, "one-shot", false);
        int r = loop_timer(api->loop, sample, watch, &watch->timer, &err);
        if (r < 0) {
                api_fail(request, r, &err);
                free(watch);
                return;
        }
        watch->instance = instance_ref(instance);
        http_request_on_close(request, watch_gone, watch);
        sample(watch);
}

const struct http_route docker_stats_routes[] = {
        { "GET", "/containers/{id}/stats", stats_begin, HTTP_BODY_NONE },
};
const size_t docker_stats_routes_length = ELEMENTS(docker_stats_routes);
