/* Device rules of version 1.
 *
 * Rules are written one by one, and while a list is replaced by "deny all, then allow
 * these" a process that uses one of them is refused for a moment. So a list of what is
 * allowed is replaced by its differences: first what is new, then what goes. That works
 * where both are such lists, which the kernel keeps as they were written: one entry for
 * a type and pair of numbers, with the access that it has. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "sys/cgroup_provider.h"

static const char access_letters[] = "rwm";

static void describe(const struct cgroup_device_rule *rule, char *text, size_t size)
{
        char major[24] = "*", minor[24] = "*";
        if (rule->major >= 0)
                snprintf(major, sizeof(major), "%lld", (long long)rule->major);
        if (rule->minor >= 0)
                snprintf(minor, sizeof(minor), "%lld", (long long)rule->minor);
        if (rule->type == 'a')
                snprintf(text, size, "a");
        else
                snprintf(text, size, "%c %s:%s %s", rule->type, major, minor, rule->access);
}

/* One write a rule, since the kernel takes no more; one open a run of rules for a file. */
static int write_rules(const char *directory, const struct cgroup_device_rule *rules, size_t length,
                       struct err *err)
{
        auto_fd fd = -1;
        const char *file = NULL;
        for (size_t i = 0; i < length; i++) {
                char text[64];
                describe(&rules[i], text, sizeof(text));
                const char *wanted = rules[i].allow ? "devices.allow" : "devices.deny";
                int r = 0;
                if (wanted != file) {
                        close_fd(&fd);
                        r = cgroup_open_file(directory, file = wanted, O_WRONLY, &fd, err);
                }
                if (r == 0)
                        r = cgroup_write(fd, directory, file, text, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

struct allowed {
        struct cgroup_device_rule *list;
        size_t length;
};

static struct cgroup_device_rule *find(const struct allowed *allowed,
                                       const struct cgroup_device_rule *like)
{
        for (size_t i = 0; i < allowed->length; i++) {
                struct cgroup_device_rule *one = &allowed->list[i];
                if (one->type == like->type && one->major == like->major &&
                    one->minor == like->minor)
                        return one;
        }
        return NULL;
}

/* `a` with or without the letters of `b`. */
static void change_access(char a[4], const char *b, bool with)
{
        char result[4] = "";
        size_t n = 0;
        for (const char *c = access_letters; *c; c++)
                if ((strchr(a, *c) && (with || !strchr(b, *c))) || (with && strchr(b, *c)))
                        result[n++] = *c;
        strcpy(a, result);
}

static void change(struct allowed *allowed, const struct cgroup_device_rule *rule)
{
        struct cgroup_device_rule *there = find(allowed, rule);
        if (there)
                change_access(there->access, rule->access, rule->allow);
        else if (rule->allow)
                allowed->list[allowed->length++] = *rule;
}

/* False where the rules do not come to a list of what is allowed: all is, or a denial cuts
 * out of something wider. */
static bool sum_up(const struct cgroup_limits *l, struct allowed *ret)
{
        ret->list = xcalloc(l->devices_length + 1, sizeof(*ret->list));
        for (size_t i = 0; i < l->devices_length; i++) {
                const struct cgroup_device_rule *rule = &l->devices[i];
                bool all = rule->type == 'a';
                if (i == 0 ? !all || rule->allow : all)
                        return false;
                if (!rule->allow && i > 0 && !find(ret, rule))
                        return false;
                if (!all)
                        change(ret, rule);
        }
        return true;
}

/* Lines of devices.list: "c 1:3 rwm", or "a *:* rwm" alone. */
static bool read_list(const char *directory, struct allowed *ret)
{
        auto_free char *text = NULL;
        if (cgroup_get(directory, "devices.list", &text, NULL) < 0)
                return false;
        auto_strv lines = str_split(text, '\n');
        ret->list = xcalloc(strv_length(lines) + 1, sizeof(*ret->list));
        for (char **line = lines; *line; line++) {
                struct cgroup_device_rule rule = { .allow = true, .major = -1, .minor = -1 };
                char major[24], minor[24];
                if (!**line)
                        continue;
                if (sscanf(*line, "%c %23[^:]:%23s %3s", &rule.type, major, minor, rule.access) !=
                            4 ||
                    rule.type == 'a')
                        return false;
                if ((!streq(major, "*") && str_to_i64(major, &rule.major) < 0) ||
                    (!streq(minor, "*") && str_to_i64(minor, &rule.minor) < 0))
                        return false;
                ret->list[ret->length++] = rule;
        }
        return true;
}

/* What `of` has and `without` has not. */
static int write_difference(const char *directory, const struct allowed *of,
                            const struct allowed *without, bool allow, struct err *err)
{
        int r = 0;
        for (size_t i = 0; r == 0 && i < of->length; i++) {
                struct cgroup_device_rule rule = of->list[i];
                const struct cgroup_device_rule *other = find(without, &rule);
                rule.allow = allow;
                if (other)
                        change_access(rule.access, other->access, false);
                if (*rule.access)
                        r = write_rules(directory, &rule, 1, err);
        }
        return r;
}

int cgroup_v1_apply_devices(const char *directory, const struct cgroup_limits *l, struct err *err)
{
        struct allowed wanted = { 0 }, there = { 0 };
        int r;
        if (sum_up(l, &wanted) && read_list(directory, &there)) {
                r = write_difference(directory, &wanted, &there, true, err);
                if (r == 0)
                        r = write_difference(directory, &there, &wanted, false, err);
        } else {
                r = write_rules(directory, l->devices, l->devices_length, err);
        }
        free(wanted.list);
        free(there.list);
        return r;
}
