#include "vmm/control/control.h"

#include <stdio.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/str.h"
#include "http/server.h"
#include "vmm/control/devices.h"
#include "vmm/control/keys.h"
#include "vmm/control/metrics.h"
#include "vmm/control/registers.h"
#include "vmm/control/saving.h"
#include "vmm/device/keyboard.h"
#include "vmm/device/power.h"
#include "vmm/virtio/balloon.h"

#define DUMP_MAX (64u << 20) /* bytes of memory in one answer */

enum control_state { CONTROL_EMPTY, CONTROL_CONFIGURED, CONTROL_RUNNING, CONTROL_PAUSED };

struct control {
        struct http_server *server;
        struct vm_config *config;
        struct vm *vm;
        bool paused;
        void (*start)(void *arg);
        void *arg;
};

static bool debugger_holds(const struct control *c)
{
        return c->vm && atomic_load(&c->vm->machine->debugger_holds);
}

static enum control_state state_of(const struct control *c)
{
        if (c->vm)
                return c->paused || debugger_holds(c) ? CONTROL_PAUSED : CONTROL_RUNNING;
        return c->config->kernel ? CONTROL_CONFIGURED : CONTROL_EMPTY;
}

static const char *state_name(const struct control *c)
{
        static const char *const names[] = { "empty", "configured", "running", "paused" };
        return names[state_of(c)];
}

static void done(struct http_request *request)
{
        http_reply(request, 204, NULL, NULL, 0);
}

/* Whether there is a machine; answers where there is none. */
static bool needs_vm(const struct control *c, struct http_request *request)
{
        if (!c->vm)
                http_reply_error(request, 409, "the VM is %s, not running", state_name(c));
        return c->vm;
}

/* Stands still while somebody looks. */
static void hold(const struct control *c)
{
        if (!c->paused)
                machine_pause(c->vm->machine);
}

static void release(const struct control *c)
{
        if (!c->paused)
                machine_resume(c->vm->machine);
}

/* ---- life ---- */

static struct json_object *paused_by(const struct control *c)
{
        struct json_object *names = json_object_new_array();
        if (c->paused)
                json_object_array_add(names, json_object_new_string("control"));
        if (debugger_holds(c))
                json_object_array_add(names, json_object_new_string("gdb"));
        return names;
}

static void show(struct http_request *request, void *arg)
{
        const struct control *c = arg;
        struct json_object *o = json_object_new_object();
        json_object_object_add(o, "state", json_object_new_string(state_name(c)));
        if (state_of(c) == CONTROL_PAUSED)
                json_object_object_add(o, "paused_by", paused_by(c));
        if (c->vm)
                json_object_object_add(o, "cpu_provider",
                                       json_object_new_string(c->vm->machine->cpu->name));
        json_object_object_add(o, "config", json_encode(&vm_config_shape, c->config));
        http_reply_json(request, 200, o);
}

static void configure(struct http_request *request, void *arg)
{
        struct control *c = arg;
        struct vm_config config;
        struct err err = { 0 };
        size_t size;
        const char *body = http_request_body(request, &size);
        if (c->vm) {
                http_reply_error(request, 409, "the VM is %s; its configuration stands",
                                 state_name(c));
                return;
        }
        vm_config_init(&config);
        int r = vm_config_decode(body, size, &config, &err);
        if (r == 0)
                r = vm_config_check(&config, &err);
        if (r < 0) {
                http_reply_error(request, 400, "%s", err_text(&err));
                vm_config_finish(&config);
                return;
        }
        vm_config_finish(c->config);
        *c->config = config;
        done(request);
}

static void start(struct http_request *request, void *arg)
{
        struct control *c = arg;
        if (state_of(c) != CONTROL_CONFIGURED) {
                http_reply_error(request, 409, "the VM is %s%s", state_name(c),
                                 c->vm ? "" : "; PUT /vm/config names a kernel");
                return;
        }
        /* Who starts it ends this server: not before the answer is out. */
        http_request_on_close(request, c->start, c->arg);
        done(request);
}

static void pause_vm(struct http_request *request, void *arg)
{
        struct control *c = arg;
        if (!needs_vm(c, request))
                return;
        hold(c);
        c->paused = true; /* held until /vm/resume */
        done(request);
}

static void resume_vm(struct http_request *request, void *arg)
{
        struct control *c = arg;
        if (!needs_vm(c, request))
                return;
        if (!c->paused && debugger_holds(c)) {
                http_reply_error(request, 409, "gdb holds the VM, and lets it go on");
                return;
        }
        if (c->paused)
                machine_resume(c->vm->machine);
        c->paused = false;
        done(request);
}

static void shut_down(struct http_request *request, void *arg)
{
        struct control *c = arg;
        if (!needs_vm(c, request))
                return;
        power_button(c->vm->power);
        done(request);
}

static void stop(struct http_request *request, void *arg)
{
        struct control *c = arg;
        if (!needs_vm(c, request))
                return;
        done(request);
        machine_end(c->vm->machine, MACHINE_STOPPED, 0, NULL);
}

static void take_snapshot(struct http_request *request, void *arg)
{
        struct control *c = arg;
        if (!needs_vm(c, request))
                return;
        if (c->paused)
                saving_answer(request, c->vm);
        else
                http_reply_error(request, 409,
                                 "the VM is %s; POST /vm/pause stops it for a snapshot",
                                 state_of(c) == CONTROL_PAUSED ? "paused by gdb only" : "running");
}

struct key_request {
        char *keys;
};

static const struct json_field key_fields[] = {
        JSON_FIELD(struct key_request, "keys", JSON_STRING, keys, JSON_REQUIRED),
};
static const struct json_shape key_shape = JSON_SHAPE("keys", struct key_request, key_fields);

static void send_key(struct http_request *request, void *arg)
{
        struct control *c = arg;
        struct key_request keys = { 0 };
        struct err err = { 0 };
        uint8_t codes[KEYS_CODES];
        size_t size, length;
        const char *body = http_request_body(request, &size);
        if (!needs_vm(c, request))
                return;
        int r = json_decode_text(&key_shape, body, size, &keys, &err);
        if (r == 0)
                r = keys_codes(keys.keys, codes, &length, &err);
        json_free(&key_shape, &keys);
        if (r < 0)
                http_reply_error(request, 400, "%s", err_text(&err));
        else if (keyboard_send(c->vm->keyboard, codes, length) < 0)
                http_reply_error(request, 409, "the guest does not read its keyboard");
        else
                done(request);
}

/* ---- looking ---- */

static void counter_into(void *arg, const char *name, uint64_t value)
{
        json_object_object_add(arg, name, json_object_new_uint64(value));
}

static void list_cpus(struct http_request *request, void *arg)
{
        const struct control *c = arg;
        if (!needs_vm(c, request))
                return;
        struct machine *m = c->vm->machine;
        struct json_object *array = json_object_new_array();
        for (unsigned i = 0; i < m->vcpus_length; i++) {
                struct json_object *o = json_object_new_object();
                json_object_object_add(o, "index", json_object_new_uint64(i));
                if (m->cpu->counters)
                        m->cpu->counters(&m->vcpus[i], counter_into, o);
                json_object_array_add(array, o);
        }
        http_reply_json(request, 200, array);
}

static void show_registers(struct http_request *request, void *arg)
{
        const struct control *c = arg;
        struct cpu_state state;
        struct err err = { 0 };
        uint32_t index;
        if (!needs_vm(c, request))
                return;
        struct machine *m = c->vm->machine;
        const char *text = http_request_param(request, "index");
        if (str_to_u32(text, &index) < 0 || index >= m->vcpus_length) {
                http_reply_error(request, 404, "there is no vCPU '%s'; there are %u", text,
                                 m->vcpus_length);
                return;
        }
        hold(c);
        int r = m->cpu->get_state(&m->vcpus[index], &state, &err);
        release(c);
        if (r < 0)
                http_reply_error(request, 500, "%s", err_text(&err));
        else
                http_reply_json(request, 200, registers_json(&state));
}

/* A number of the query, decimal or 0x…; answers where it is none. */
static bool query_number(struct http_request *request, const char *name, uint64_t *ret)
{
        const char *text = http_request_query(request, name);
        char *end = NULL;
        errno = 0;
        if (text && *text >= '0' && *text <= '9')
                *ret = strtoull(text, &end, 0);
        if (end && !*end && !errno)
                return true;
        http_reply_error(request, 400, "%s '%s' is not a number such as 0x100000", name,
                         text ? text : "");
        return false;
}

static void show_memory(struct http_request *request, void *arg)
{
        const struct control *c = arg;
        uint64_t address, size;
        if (!needs_vm(c, request) || !query_number(request, "address", &address) ||
            !query_number(request, "size", &size))
                return;
        const uint8_t *bytes = size && size <= DUMP_MAX
                                       ? memory_at(&c->vm->machine->memory, gpa(address), size)
                                       : NULL;
        if (!bytes) {
                http_reply_error(request, 400,
                                 "%llu bytes at 0x%llx are not memory; at most %u at a time",
                                 (unsigned long long)size, (unsigned long long)address, DUMP_MAX);
                return;
        }
        hold(c);
        http_reply(request, 200, "application/octet-stream", bytes, size);
        release(c);
}

/* ---- the balloon ---- */

static bool needs_balloon(const struct control *c, struct http_request *request)
{
        if (!needs_vm(c, request))
                return false;
        if (!c->vm->balloon)
                http_reply_error(request, 409, "the VM has no balloon, as it has an IOMMU");
        return c->vm->balloon;
}

static void show_balloon(struct http_request *request, void *arg)
{
        static const char *const names[BALLOON_STATS] = {
                "swapped_in_bytes", "swapped_out_bytes", "major_faults",    "minor_faults",
                "free_bytes",       "total_bytes",       "available_bytes", "cache_bytes",
        };
        const struct control *c = arg;
        struct balloon_view view;
        if (!needs_balloon(c, request))
                return;
        balloon_view(c->vm->balloon, &view);
        struct json_object *o = json_object_new_object();
        counter_into(o, "target_bytes", view.target_bytes);
        counter_into(o, "actual_bytes", view.actual_bytes);
        counter_into(o, "reported_bytes", view.reported_bytes);
        if (view.has_stats) {
                struct json_object *stats = json_object_new_object();
                for (unsigned i = 0; i < BALLOON_STATS; i++)
                        counter_into(stats, names[i], view.stats[i]);
                json_object_object_add(o, "guest", stats);
        }
        http_reply_json(request, 200, o);
}

struct balloon_request {
        uint64_t target_mib;
};

static const struct json_field balloon_fields[] = {
        JSON_FIELD(struct balloon_request, "target_mib", JSON_UINT, target_mib, JSON_REQUIRED),
};
static const struct json_shape balloon_shape = JSON_SHAPE("balloon", struct balloon_request,
                                                          balloon_fields);

static void set_balloon(struct http_request *request, void *arg)
{
        struct control *c = arg;
        struct balloon_request wanted = { 0 };
        struct err err = { 0 };
        size_t size;
        const char *body = http_request_body(request, &size);
        if (!needs_balloon(c, request))
                return;
        if (json_decode_text(&balloon_shape, body, size, &wanted, &err) < 0)
                http_reply_error(request, 400, "%s", err_text(&err));
        else if (wanted.target_mib > c->config->memory_mib ||
                 balloon_set_target(c->vm->balloon, wanted.target_mib << 20) < 0)
                http_reply_error(request, 400, "a balloon of %llu MiB: the VM has %llu",
                                 (unsigned long long)wanted.target_mib,
                                 (unsigned long long)c->config->memory_mib);
        else
                done(request);
}

/* ---- devices that come and go ---- */

static void list_devices(struct http_request *request, void *arg)
{
        const struct control *c = arg;
        if (needs_vm(c, request))
                devices_list(request, c->vm);
}

static void attach_device(struct http_request *request, void *arg)
{
        const struct control *c = arg;
        if (needs_vm(c, request))
                devices_attach(request, c->vm);
}

static void detach_device(struct http_request *request, void *arg)
{
        const struct control *c = arg;
        if (needs_vm(c, request))
                devices_detach(request, c->vm);
}

static void show_metrics(struct http_request *request, void *arg)
{
        const struct control *c = arg;
        auto_buf text = { 0 };
        if (c->vm)
                metrics_write(c->vm->machine, &text);
        http_reply(request, 200, "text/plain; version=0.0.4", buf_text(&text), text.size);
}

static void show_profile(struct http_request *request, void *arg)
{
        const struct control *c = arg;
        auto_buf text = { 0 };
        if (!needs_vm(c, request))
                return;
        struct machine *m = c->vm->machine;
        hold(c);
        bool profiled = m->cpu->profiled && m->cpu->profiled(m, &text);
        release(c);
        if (profiled)
                http_reply(request, 200, "text/plain", buf_text(&text), text.size);
        else
                http_reply_error(request, 409,
                                 "the VM is not profiled; --profile FILE asks for it");
}

static const struct http_route routes[] = {
        { "GET", "/vm", show, HTTP_BODY_NONE, NULL },
        { "PUT", "/vm/config", configure, HTTP_BODY_BUFFERED, NULL },
        { "POST", "/vm/start", start, HTTP_BODY_NONE, NULL },
        { "POST", "/vm/pause", pause_vm, HTTP_BODY_NONE, NULL },
        { "POST", "/vm/resume", resume_vm, HTTP_BODY_NONE, NULL },
        { "POST", "/vm/shutdown", shut_down, HTTP_BODY_NONE, NULL },
        { "POST", "/vm/stop", stop, HTTP_BODY_NONE, NULL },
        { "PUT", "/vm/snapshot", take_snapshot, HTTP_BODY_NONE, NULL },
        { "POST", "/vm/send-key", send_key, HTTP_BODY_BUFFERED, NULL },
        { "GET", "/vm/cpus", list_cpus, HTTP_BODY_NONE, NULL },
        { "GET", "/vm/cpus/{index}/registers", show_registers, HTTP_BODY_NONE, NULL },
        { "GET", "/vm/memory", show_memory, HTTP_BODY_NONE, NULL },
        { "GET", "/vm/balloon", show_balloon, HTTP_BODY_NONE, NULL },
        { "PUT", "/vm/balloon", set_balloon, HTTP_BODY_BUFFERED, NULL },
        { "GET", "/vm/devices", list_devices, HTTP_BODY_NONE, NULL },
        { "PUT", "/vm/devices/{name}", attach_device, HTTP_BODY_BUFFERED, NULL },
        { "DELETE", "/vm/devices/{name}", detach_device, HTTP_BODY_NONE, NULL },
        { "GET", "/vm/profile", show_profile, HTTP_BODY_NONE, NULL },
        { "GET", "/metrics", show_metrics, HTTP_BODY_NONE, NULL },
};

/* ---- the socket ---- */

int control_create(struct loop *loop, int listen_fd, struct vm_config *config,
                   void (*start_machine)(void *arg), void *arg, struct control **ret,
                   struct err *err)
{
        struct control *c = new0(struct control);
        c->config = config;
        c->start = start_machine;
        c->arg = arg;
        int r = http_server_create(loop, routes, ELEMENTS(routes), c, &c->server, err);
        if (r == 0)
                http_server_take_fds(c->server);
        if (r == 0)
                r = http_server_listen(c->server, listen_fd, err);
        else
                close(listen_fd);
        if (r < 0) {
                control_destroy(c);
                return r;
        }
        *ret = c;
        return 0;
}

void control_destroy(struct control *c)
{
        if (!c)
                return;
        if (c->server)
                http_server_destroy(c->server);
        free(c);
}

void control_set_vm(struct control *c, struct vm *vm)
{
        if (!c)
                return;
        c->vm = vm;
        c->paused = false;
}
