#include "engine/seccomp_profile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>

#include "base/auto.h"
#include "base/str.h"
#include "sys/caps.h"

#define NATIVE_ARCHITECTURE "SCMP_ARCH_X86_64"
#define NATIVE_GO_NAME      "amd64"

static bool has_capability(char *const *capabilities, int cap)
{
        const char *name = caps_name(cap);
        return name && strv_contains(capabilities, name);
}

static struct oci_syscall *append_rule(struct oci_seccomp *seccomp)
{
        seccomp->syscalls = xrealloc(seccomp->syscalls, seccomp->syscalls_length + 1,
                                     sizeof(*seccomp->syscalls));
        struct oci_syscall *rule = &seccomp->syscalls[seccomp->syscalls_length++];
        *rule = (struct oci_syscall){ 0 };
        return rule;
}

void seccomp_default(char *const *capabilities, struct oci_seccomp *ret)
{
        struct oci_seccomp seccomp = {
                .default_action = OCI_SECCOMP_ERRNO,
                .default_errno_ret = EPERM,
                .has_default_errno_ret = true,
        };
        strv_push(&seccomp.architectures, NATIVE_ARCHITECTURE);
        strv_push(&seccomp.architectures, "SCMP_ARCH_X86");
        strv_push(&seccomp.architectures, "SCMP_ARCH_X32");
        size_t length;
        const struct seccomp_default_rule *rules = seccomp_default_rules(&length);
        for (size_t i = 0; i < length; i++) {
                const struct seccomp_default_rule *rule = &rules[i];
                if (rule->cap >= 0 && has_capability(capabilities, rule->cap) == rule->without_cap)
                        continue;
                struct oci_syscall *out = append_rule(&seccomp);
                out->names = str_split(rule->names, ' ');
                out->action = rule->errno_ret ? OCI_SECCOMP_ERRNO : OCI_SECCOMP_ALLOW;
                out->errno_ret = rule->errno_ret;
                out->has_errno_ret = rule->errno_ret != 0;
                if (!rule->conditional)
                        continue;
                out->args = new0(struct oci_seccomp_arg);
                out->args_length = 1;
                *out->args = (struct oci_seccomp_arg){ .value = rule->value,
                                                       .value_two = rule->value_two,
                                                       .op = rule->op };
        }
        *ret = seccomp;
}

/* -- docker's files ------------------------------------------------------------ */

struct condition {
        char **arches, **caps;
        char *min_kernel;
};

struct profile_rule {
        struct condition includes, excludes;
};

struct arch_map {
        char *architecture;
        char **sub_architectures;
};

struct profile {
        struct arch_map *arch_map;
        size_t arch_map_length;
        struct profile_rule *rules;
        size_t rules_length;
};

#define T struct condition
static const struct json_field condition_fields[] = {
        JSON_FIELD(T, "arches", JSON_STRV, arches, 0),
        JSON_FIELD(T, "caps", JSON_STRV, caps, 0),
        JSON_FIELD(T, "minKernel", JSON_STRING, min_kernel, 0),
};
static const struct json_shape condition_shape = JSON_SHAPE("condition", T, condition_fields);
#undef T

#define T struct profile_rule
static const struct json_field profile_rule_fields[] = {
        JSON_FIELD_STRUCT(T, "includes", includes, &condition_shape, 0),
        JSON_FIELD_STRUCT(T, "excludes", excludes, &condition_shape, 0),
};
static const struct json_shape profile_rule_shape = JSON_SHAPE("syscalls", T, profile_rule_fields);
#undef T

#define T struct arch_map
static const struct json_field arch_map_fields[] = {
        JSON_FIELD(T, "architecture", JSON_STRING, architecture, 0),
        JSON_FIELD(T, "subArchitectures", JSON_STRV, sub_architectures, 0),
};
static const struct json_shape arch_map_shape = JSON_SHAPE("archMap", T, arch_map_fields);
#undef T

#define T struct profile
static const struct json_field profile_fields[] = {
        JSON_FIELD_ARRAY(T, "archMap", arch_map, arch_map_length, &arch_map_shape, 0),
        JSON_FIELD_ARRAY(T, "syscalls", rules, rules_length, &profile_rule_shape, 0),
};
static const struct json_shape profile_shape = JSON_SHAPE("seccomp profile", T, profile_fields);
#undef T

/* Whether the running kernel is at least "4.8". */
static bool kernel_is_at_least(const char *version)
{
        unsigned want[2] = { 0 }, have[2] = { 0 };
        struct utsname names;
        if (uname(&names) < 0 || sscanf(version, "%u.%u", &want[0], &want[1]) < 1 ||
            sscanf(names.release, "%u.%u", &have[0], &have[1]) != 2)
                return false;
        return have[0] > want[0] || (have[0] == want[0] && have[1] >= want[1]);
}

static bool applies(const struct profile_rule *rule, char *const *capabilities)
{
        const struct condition *in = &rule->includes, *out = &rule->excludes;
        if (out->arches && strv_contains(out->arches, NATIVE_GO_NAME))
                return false;
        for (char **cap = out->caps; cap && *cap; cap++)
                if (strv_contains(capabilities, *cap))
                        return false;
        if (!str_empty(out->min_kernel) && kernel_is_at_least(out->min_kernel))
                return false;
        if (in->arches && *in->arches && !strv_contains(in->arches, NATIVE_GO_NAME))
                return false;
        for (char **cap = in->caps; cap && *cap; cap++)
                if (!strv_contains(capabilities, *cap))
                        return false;
        return str_empty(in->min_kernel) || kernel_is_at_least(in->min_kernel);
}

static void apply_arch_map(const struct profile *profile, struct oci_seccomp *seccomp)
{
        for (size_t i = 0; i < profile->arch_map_length; i++) {
                const struct arch_map *map = &profile->arch_map[i];
                if (!streq(map->architecture, NATIVE_ARCHITECTURE))
                        continue;
                strv_push(&seccomp->architectures, map->architecture);
                for (char **sub = map->sub_architectures; sub && *sub; sub++)
                        strv_push(&seccomp->architectures, *sub);
        }
}

/* Keeps the rules that hold here, in order. */
static void select_rules(const struct profile *profile, char *const *capabilities,
                         struct oci_seccomp *seccomp)
{
        size_t kept = 0;
        for (size_t i = 0; i < seccomp->syscalls_length; i++) {
                struct oci_syscall rule = seccomp->syscalls[i];
                seccomp->syscalls[i] = (struct oci_syscall){ 0 };
                if (applies(&profile->rules[i], capabilities) && rule.names && *rule.names) {
                        seccomp->syscalls[kept++] = rule;
                        continue;
                }
                strv_free(rule.names);
                free(rule.args);
        }
        seccomp->syscalls_length = kept;
}

/* Old profiles have one "name" a rule: makes it "names". */
static void modernise(struct json_object *object)
{
        struct json_object *rules;
        if (!json_object_object_get_ex(object, "syscalls", &rules) ||
            json_object_get_type(rules) != json_type_array)
                return;
        for (size_t i = 0; i < json_object_array_length(rules); i++) {
                struct json_object *rule = json_object_array_get_idx(rules, i), *name, *names;
                if (json_object_get_type(rule) != json_type_object ||
                    !json_object_object_get_ex(rule, "name", &name) ||
                    json_object_object_get_ex(rule, "names", &names))
                        continue;
                names = json_object_new_array();
                json_object_array_add(names, json_object_get(name));
                json_object_object_add(rule, "names", names);
        }
}

int seccomp_profile_parse(const char *text, size_t size, char *const *capabilities,
                          struct oci_seccomp *ret, struct err *err)
{
        if (size > SECCOMP_PROFILE_SIZE_MAX)
                return err_plain(err, EFBIG, "seccomp profile is larger than %zu bytes",
                                 SECCOMP_PROFILE_SIZE_MAX);
        auto_json object = NULL;
        int r = json_parse(text, size, &object, err);
        if (r < 0)
                return r;
        /* The same text twice: once for what OCI knows, once for the rest. Both keep
         * every element of "syscalls", so their indexes agree. */
        if (json_object_get_type(object) == json_type_object)
                modernise(object);
        struct oci_seccomp seccomp = { 0 };
        struct profile profile = { 0 };
        r = json_decode(&oci_seccomp_shape, object, &seccomp, err);
        if (r < 0)
                return r;
        r = json_decode(&profile_shape, object, &profile, err);
        if (r < 0) {
                json_free(&oci_seccomp_shape, &seccomp);
                return r;
        }
        if (!seccomp.architectures)
                apply_arch_map(&profile, &seccomp);
        select_rules(&profile, capabilities, &seccomp);
        json_free(&profile_shape, &profile);
        *ret = seccomp;
        return 0;
}
