#include "sys/systemd.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "sys/dbus.h"

#define SERVICE     "org.freedesktop.systemd1"
#define OBJECT      "/org/freedesktop/systemd1"
#define MANAGER     SERVICE ".Manager"
#define BUS         "org.freedesktop.DBus"
#define JOB_RULE    "type='signal',interface='" MANAGER "',member='JobRemoved'"
#define JOBS_MAX    256 /* ends of other jobs that are remembered while ours is waited for */
#define START_TRIES 2

struct systemd {
        struct dbus *dbus;
        char *address;
        char **ended; /* "job result" of JobRemoved signals */
};

static int64_t deadline(void)
{
        return clock_monotonic_ns() + SYSTEMD_TIMEOUT_MS * NS_PER_MS;
}

/* systemd's own socket has no bus behind it, on which one would have to be somebody. */
static bool is_bus(const char *address)
{
        return !str_ends(address, "/systemd/private");
}

static void remember_signal(struct systemd *systemd, const struct dbus_message *m)
{
        struct dbus_reader body = dbus_read_body(m);
        uint32_t number;
        const char *job, *unit, *result;
        if (m->type != DBUS_SIGNAL || !streq(m->member, "JobRemoved") ||
            !streq(m->interface, MANAGER) || strv_length(systemd->ended) >= JOBS_MAX)
                return;
        if (dbus_get_u32(&body, &number) == 0 && dbus_get_string(&body, &job) == 0 &&
            dbus_get_string(&body, &unit) == 0 && dbus_get_string(&body, &result) == 0)
                strv_push_take(&systemd->ended, xasprintf("%s %s", job, result));
}

static const struct {
        const char *name;
        int code;
} known_errors[] = {
        { SERVICE ".NoSuchUnit", ENOENT },
        { SERVICE ".UnitExists", EEXIST },
        { BUS ".Error.AccessDenied", EACCES },
        { BUS ".Error.InteractiveAuthorizationRequired", EACCES },
        { BUS ".Error.InvalidArgs", EINVAL },
        { BUS ".Error.PropertyReadOnly", EINVAL },
        { BUS ".Error.ServiceUnknown", ENOENT },
};

static int refused(const struct dbus_message *reply, const char *member, struct err *err)
{
        struct dbus_reader body = dbus_read_body(reply);
        const char *story = reply->error;
        int code = EIO;
        for (size_t i = 0; i < ELEMENTS(known_errors); i++)
                if (streq(known_errors[i].name, reply->error))
                        code = known_errors[i].code;
        if (reply->signature && *reply->signature == 's')
                (void)dbus_get_string(&body, &story);
        return err_plain(err, code, "systemd: %s: %s", member, story);
}

/* Sends a call and waits for its answer, which is good until the next call. */
static int ask(struct systemd *systemd, const struct dbus_call *call, struct dbus_message *ret,
               struct err *err)
{
        uint32_t serial;
        int64_t end = deadline();
        int r = dbus_send(systemd->dbus, call, &serial, err);
        while (r == 0 && (r = dbus_receive(systemd->dbus, end, ret, err)) == 0) {
                remember_signal(systemd, ret);
                bool ours = ret->reply_serial == serial;
                if (ours && ret->type == DBUS_METHOD_RETURN)
                        return 0;
                if (ours && ret->type == DBUS_ERROR)
                        return refused(ret, call->member, err);
        }
        err_wrap(err, "systemd: %s", call->member);
        return r;
}

static int ask_manager(struct systemd *systemd, const char *member, const char *signature,
                       const struct buf *body, struct dbus_message *ret, struct err *err)
{
        struct dbus_call call = { .destination = SERVICE,
                                  .path = OBJECT,
                                  .interface = MANAGER,
                                  .member = member,
                                  .signature = signature,
                                  .body = body };
        return ask(systemd, &call, ret, err);
}

/* On a bus one has to say hello, and to ask for signals. */
static int join_bus(struct systemd *systemd, struct err *err)
{
        struct dbus_message reply;
        auto_buf rule = { 0 };
        dbus_put_string(&rule, JOB_RULE);
        struct dbus_call hello = { .destination = BUS,
                                   .path = "/org/freedesktop/DBus",
                                   .interface = BUS,
                                   .member = "Hello" };
        struct dbus_call match = hello;
        match.member = "AddMatch";
        match.signature = "s";
        match.body = &rule;
        int r = ask(systemd, &hello, &reply, err);
        if (r == 0)
                r = ask(systemd, &match, &reply, err);
        return r == 0 ? ask_manager(systemd, "Subscribe", NULL, NULL, &reply, err) : r;
}

static int connect_to(const char *address, struct systemd **ret, struct err *err)
{
        auto_systemd systemd = new0(struct systemd);
        int r = dbus_connect(address, SYSTEMD_TIMEOUT_MS, &systemd->dbus, err);
        if (r < 0)
                return r;
        systemd->address = xstrdup(address);
        if (is_bus(address))
                r = join_bus(systemd, err);
        if (r == 0)
                *ret = take_ptr(systemd);
        return r;
}

static char **addresses(bool user)
{
        char **list = NULL;
        const char *set = getenv(user ? "DBUS_SESSION_BUS_ADDRESS" : "DBUS_SYSTEM_BUS_ADDRESS");
        const char *directory = getenv("XDG_RUNTIME_DIR");
        if (!user && !str_empty(set))
                strv_push(&list, set);
        if (!user) {
                strv_push(&list, "unix:path=/run/systemd/private");
                strv_push(&list, "unix:path=/run/dbus/system_bus_socket");
                return list;
        }
        if (!str_empty(directory)) {
                strv_push_take(&list, xasprintf("unix:path=%s/systemd/private", directory));
                strv_push_take(&list, xasprintf("unix:path=%s/bus", directory));
        }
        if (!str_empty(set))
                strv_push(&list, set);
        return list;
}

int systemd_connect(const char *address, bool user, struct systemd **ret, struct err *err)
{
        if (address)
                return connect_to(address, ret, err);
        auto_strv list = addresses(user);
        auto_buf stories = { 0 };
        int r = -ENOENT;
        for (char **one = list; one && *one; one++) {
                struct err story;
                r = connect_to(*one, ret, &story);
                if (r == 0)
                        return 0;
                buf_printf(&stories, "%s%s", stories.size ? "; " : "", err_text(&story));
        }
        return err_plain(err, -r,
                         "no connection to systemd%s: %s; where it does not run, use "
                         "--cgroup-manager=cgroupfs",
                         user ? " of this user" : "",
                         stories.size ? buf_text(&stories) : "XDG_RUNTIME_DIR is not set");
}

void systemd_close(struct systemd *systemd)
{
        if (!systemd)
                return;
        dbus_close(systemd->dbus);
        free(systemd->address);
        strv_free(systemd->ended);
        free(systemd);
}

const char *systemd_address(const struct systemd *systemd)
{
        return systemd->address;
}

int systemd_control_group(struct systemd *systemd, char **ret, struct err *err)
{
        auto_buf body = { 0 };
        struct dbus_message reply;
        dbus_put_string(&body, MANAGER);
        dbus_put_string(&body, "ControlGroup");
        struct dbus_call call = { .destination = SERVICE,
                                  .path = OBJECT,
                                  .interface = BUS ".Properties",
                                  .member = "Get",
                                  .signature = "ss",
                                  .body = &body };
        int r = ask(systemd, &call, &reply, err);
        if (r < 0)
                return r;
        struct dbus_reader answer = dbus_read_body(&reply);
        const char *group;
        if (dbus_get_variant_string(&answer, &group) < 0)
                return err_plain(err, EBADMSG, "systemd: ControlGroup is not a text");
        *ret = xstrdup(streq(group, "/") ? "" : group);
        return 0;
}

/* The result of a job that we started: "done", or what became of it instead. */
static int wait_job(struct systemd *systemd, const char *job, const char *unit, struct err *err)
{
        int64_t end = deadline();
        size_t seen = 0;
        for (;;) {
                for (; systemd->ended && systemd->ended[seen]; seen++) {
                        const char *rest = str_after(systemd->ended[seen], job);
                        if (!rest || *rest != ' ')
                                continue;
                        if (streq(rest, " done") || streq(rest, " skipped"))
                                return 0;
                        return err_plain(err, EIO, "systemd: the job for %s ended as%s", unit,
                                         rest);
                }
                struct dbus_message message;
                int r = dbus_receive(systemd->dbus, end, &message, err);
                if (r < 0) {
                        err_wrap(err, "systemd: wait for the job for %s", unit);
                        return r;
                }
                if (seen >= JOBS_MAX) { /* none of them was ours */
                        strv_free(systemd->ended);
                        systemd->ended = NULL;
                        seen = 0;
                }
                remember_signal(systemd, &message);
        }
}

/* The job's path out of the answer, then its end. */
static int finish_job(struct systemd *systemd, const struct dbus_message *reply, const char *unit,
                      struct err *err)
{
        struct dbus_reader body = dbus_read_body(reply);
        const char *path;
        if (dbus_get_string(&body, &path) < 0)
                return err_plain(err, EBADMSG, "systemd did not name a job for %s", unit);
        auto_free char *job = xstrdup(path);
        return wait_job(systemd, job, unit, err);
}

static void put_start(struct buf *body, const struct systemd_scope *scope)
{
        dbus_put_string(body, scope->unit);
        dbus_put_string(body, "replace");
        struct dbus_array properties = dbus_array_begin(body, 8);
        systemd_put_string(body, "Description", scope->description);
        systemd_put_string(body, "Slice", scope->slice);
        systemd_put_bool(body, "Delegate", true);
        systemd_put_bool(body, "DefaultDependencies", false);
        systemd_put_bool(body, "MemoryAccounting", true);
        systemd_put_bool(body, "CPUAccounting", true);
        systemd_put_bool(body, "IOAccounting", true);
        systemd_put_bool(body, "TasksAccounting", true);
        systemd_put_name(body, "PIDs", "au");
        struct dbus_array pids = dbus_array_begin(body, 4);
        dbus_put_u32(body, (uint32_t)scope->pid);
        dbus_array_end(body, pids);
        dbus_put_padding(body, 8);
        if (scope->properties && scope->properties->size)
                buf_append(body, scope->properties->data, scope->properties->size);
        dbus_array_end(body, properties);
        dbus_array_end(body, dbus_array_begin(body, 8)); /* no auxiliary units */
}

static int reset_failed(struct systemd *systemd, const char *unit, struct err *err)
{
        struct dbus_message reply;
        auto_buf body = { 0 };
        dbus_put_string(&body, unit);
        int r = ask_manager(systemd, "ResetFailedUnit", "s", &body, &reply, err);
        return r == -ENOENT ? 0 : r;
}

int systemd_start_scope(struct systemd *systemd, const struct systemd_scope *scope, struct err *err)
{
        struct dbus_message reply;
        auto_buf body = { 0 };
        int r = -EEXIST;
        put_start(&body, scope);
        for (int i = 0; r == -EEXIST && i < START_TRIES; i++) {
                if (i > 0 && reset_failed(systemd, scope->unit, NULL) < 0)
                        break;
                r = ask_manager(systemd, "StartTransientUnit", "ssa(sv)a(sa(sv))", &body, &reply,
                                err);
        }
        return r < 0 ? r : finish_job(systemd, &reply, scope->unit, err);
}

int systemd_stop(struct systemd *systemd, const char *unit, struct err *err)
{
        struct dbus_message reply;
        auto_buf body = { 0 };
        dbus_put_string(&body, unit);
        dbus_put_string(&body, "replace");
        int r = ask_manager(systemd, "StopUnit", "ss", &body, &reply, err);
        if (r == 0)
                r = finish_job(systemd, &reply, unit, err);
        if (r < 0 && r != -ENOENT)
                return r;
        return reset_failed(systemd, unit, err);
}

int systemd_set(struct systemd *systemd, const char *unit, const struct buf *properties,
                struct err *err)
{
        struct dbus_message reply;
        auto_buf body = { 0 };
        dbus_put_string(&body, unit);
        dbus_put_u32(&body, true); /* until the unit ends, not for ever */
        struct dbus_array array = dbus_array_begin(&body, 8);
        if (properties->size)
                buf_append(&body, properties->data, properties->size);
        dbus_array_end(&body, array);
        return ask_manager(systemd, "SetUnitProperties", "sba(sv)", &body, &reply, err);
}
