#include "runtime/scope.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "sys/namespace.h"

#define ANNOTATION           "org.systemd.property."
#define PROC_TEXT_SIZE_MAX   ((size_t)1 << 20)
#define UNIT_NAME_LENGTH_MAX 255

/* What a unit's name cannot have is written as \xNN, which is systemd's own way. */
static char *escape(const char *text)
{
        auto_buf out = { 0 };
        for (const char *c = text; *c; c++) {
                if (isalnum((unsigned char)*c) || strchr(":-_.\\", *c))
                        buf_putc(&out, *c);
                else
                        buf_printf(&out, "\\x%02x", (unsigned char)*c);
        }
        return buf_take(&out);
}

int scope_name_parse(const char *cgroups_path, const char *id, bool user, struct scope_name *ret,
                     struct err *err)
{
        auto_free char *otherwise = xasprintf(":isle:%s", id);
        auto_strv parts = str_split(str_empty(cgroups_path) ? otherwise : cgroups_path, ':');
        if (strv_length(parts) != 3 || !*parts[2])
                return err_plain(err, EINVAL,
                                 "cgroupsPath '%s' must be \"slice:prefix:name\" with the systemd "
                                 "cgroup driver",
                                 cgroups_path);
        if (str_ends(parts[2], ".slice"))
                return err_plain(err, EINVAL,
                                 "cgroupsPath '%s': a container is a scope, it cannot be the slice "
                                 "'%s'",
                                 cgroups_path, parts[2]);
        const char *slice = *parts[0] ? parts[0] : user ? "user.slice" : "system.slice";
        auto_free char *path = systemd_slice_path(slice);
        if (!path)
                return err_plain(err, EINVAL, "cgroupsPath '%s': '%s' is no name of a slice",
                                 cgroups_path, slice);
        auto_free char *name = escape(parts[2]);
        auto_free char *prefix = escape(parts[1]);
        auto_free char *unit = xasprintf("%s%s%s.scope", prefix, *prefix ? "-" : "", name);
        if (strlen(unit) > UNIT_NAME_LENGTH_MAX)
                return err_plain(err, ENAMETOOLONG, "the scope's name '%s' is too long", unit);
        *ret = (struct scope_name){ .slice = xstrdup(slice), .unit = take_ptr(unit) };
        return 0;
}

void scope_name_finish(struct scope_name *name)
{
        free(name->slice);
        free(name->unit);
        *name = (struct scope_name){ 0 };
}

static int put_annotations(struct buf *to, char *const *annotations, struct err *err)
{
        int r = 0;
        for (; r == 0 && annotations && *annotations; annotations++) {
                const char *value;
                auto_free char *key = json_map_split(*annotations, &value);
                const char *name = str_after(key, ANNOTATION);
                if (name)
                        r = systemd_put_text(to, name, value, err);
        }
        return r < 0 ? err_wrap(err, "annotations") : 0;
}

static int put_properties(struct buf *to, const struct cgroup_limits *limits, struct err *err)
{
        auto_free char *devices = NULL;
        if (limits->devices) {
                int r = file_read(AT_FDCWD, "/proc/devices", PROC_TEXT_SIZE_MAX, &devices, NULL,
                                  err);
                if (r < 0)
                        return r;
                systemd_put_devices(to, limits->devices, limits->devices_length, devices);
        }
        return systemd_put_limits(to, limits, cgroup_mode() == CGROUP_MODE_V2, err);
}

int scope_prepare(const struct oci_spec *spec, const struct cgroup_limits *limits, const char *id,
                  struct scope **ret, struct err *err)
{
        bool user = namespace_is_rootless(); /* then systemd is the user's own */
        auto_free char *base = NULL;
        struct scope *scope = new0(struct scope);
        int r = scope_name_parse(spec->linux_->cgroups_path, id, user, &scope->name, err);
        if (r == 0)
                r = put_properties(&scope->properties, limits, err);
        if (r == 0)
                r = put_annotations(&scope->properties, spec->annotations, err);
        if (r == 0)
                r = systemd_connect(NULL, user, &scope->systemd, err);
        if (r == 0)
                r = systemd_control_group(scope->systemd, &base, err);
        if (r < 0) {
                scope_destroy(scope);
                return r;
        }
        auto_free char *slice = systemd_slice_path(scope->name.slice);
        scope->path = xasprintf("%s%s/%s", base, slice, scope->name.unit);
        *ret = scope;
        return 0;
}

int scope_start(struct scope *scope, const char *id, pid_t pid, struct err *err)
{
        auto_free char *description = xasprintf("container %s", id);
        struct systemd_scope with = { .unit = scope->name.unit,
                                      .slice = scope->name.slice,
                                      .description = description,
                                      .pid = pid,
                                      .properties = &scope->properties };
        return systemd_start_scope(scope->systemd, &with, err);
}

void scope_destroy(struct scope *scope)
{
        if (!scope)
                return;
        scope_name_finish(&scope->name);
        free(scope->path);
        systemd_close(scope->systemd);
        buf_finish(&scope->properties);
        free(scope);
}

int scope_update(const struct record *record, const struct cgroup_limits *limits, struct err *err)
{
        auto_systemd systemd = NULL;
        auto_buf properties = { 0 };
        if (!record->scope)
                return 0;
        int r = put_properties(&properties, limits, err);
        if (r == 0)
                r = systemd_connect(record->systemd, false, &systemd, err);
        return r == 0 ? systemd_set(systemd, record->scope, &properties, err) : r;
}

void scope_stop(const struct record *record)
{
        struct err err;
        auto_systemd systemd = NULL;
        if (!record->scope)
                return;
        int r = systemd_connect(record->systemd, false, &systemd, &err);
        if (r == 0)
                r = systemd_stop(systemd, record->scope, &err);
        if (r < 0)
                log_warning("scope %s of container %s: %s", record->scope, record->id,
                            err_text(&err));
}
