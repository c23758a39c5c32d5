#include "engine/security.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "engine/seccomp_profile.h"
#include "sys/caps.h"

#define BIT(cap) (1ULL << (cap))

/* What root in an instance may do unless told otherwise: docker's list. */
#define DEFAULT_CAPABILITIES                                                                       \
        (BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FSETID) | BIT(CAP_FOWNER) |              \
         BIT(CAP_MKNOD) | BIT(CAP_NET_RAW) | BIT(CAP_SETGID) | BIT(CAP_SETUID) |                   \
         BIT(CAP_SETFCAP) | BIT(CAP_SETPCAP) | BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_SYS_CHROOT) |   \
         BIT(CAP_KILL) | BIT(CAP_AUDIT_WRITE))

static bool has_all(char *const *names)
{
        for (; names && *names; names++)
                if (strcasecmp(*names, "ALL") == 0)
                        return true;
        return false;
}

static int mask_of(char *const *names, const char *what, uint64_t *ret, struct err *err)
{
        uint64_t mask = 0;
        for (; names && *names; names++) {
                int cap;
                if (strcasecmp(*names, "ALL") == 0)
                        continue;
                if (caps_parse(*names, &cap) < 0)
                        return err_plain(err, EINVAL, "invalid %s: unknown capability: \"%s\"",
                                         what, *names);
                mask |= BIT(cap);
        }
        *ret = mask;
        return 0;
}

/* Everything this machine lets us hand on. */
static uint64_t whole_mask(void)
{
        struct caps_sets own;
        return caps_get(&own, NULL) == 0 ? own.bounding & own.permitted : CAPS_ALL;
}

static int parse_capabilities(const struct host_config *host, struct security *security,
                              struct err *err)
{
        uint64_t add = 0, drop = 0, mask;
        int r = mask_of(host->cap_add, "CapAdd", &add, err);
        if (r == 0)
                r = mask_of(host->cap_drop, "CapDrop", &drop, err);
        if (r < 0)
                return r;
        if (host->privileged) {
                mask = whole_mask();
        } else if (has_all(host->cap_add)) {
                mask = (whole_mask() | add) & ~drop;
        } else if (has_all(host->cap_drop)) {
                mask = add;
        } else {
                mask = (DEFAULT_CAPABILITIES & ~drop) | add;
        }
        security->all_capabilities = host->privileged;
        for (int cap = 0; cap <= 63 && caps_name(cap); cap++)
                if (mask & BIT(cap))
                        strv_push(&security->capabilities, caps_name(cap));
        if (!security->capabilities)
                security->capabilities = xcalloc(1, sizeof(char *));
        return 0;
}

/* The value of "key=value" or "key:value" where the key matches; NULL otherwise. */
static const char *option_value(const char *option, const char *key)
{
        const char *rest = str_after(option, key);
        return rest && (*rest == '=' || *rest == ':') ? rest + 1 : NULL;
}

static int parse_option(const char *option, struct security *security, char ***warnings,
                        struct err *err)
{
        const char *value;
        if (streq(option, "no-new-privileges")) {
                security->no_new_privileges = true;
        } else if ((value = option_value(option, "no-new-privileges"))) {
                if (!streq(value, "true") && !streq(value, "false"))
                        return err_plain(err, EINVAL, "invalid --security-opt 2: \"%s\"", option);
                security->no_new_privileges = streq(value, "true");
        } else if ((value = option_value(option, "seccomp"))) {
                free(security->seccomp_profile);
                security->seccomp_profile = NULL;
                security->seccomp_unconfined = streq(value, "unconfined");
                if (!security->seccomp_unconfined && !streq(value, "builtin"))
                        security->seccomp_profile = xstrdup(value);
        } else if ((value = option_value(option, "apparmor"))) {
                if (!streq(value, "unconfined") && access("/sys/module/apparmor", F_OK) < 0)
                        strv_push(warnings, "AppArmor is not available on this host; the profile "
                                            "is ignored.");
                else if (!streq(value, "unconfined"))
                        return err_plain(err, ENOTSUP,
                                         "AppArmor profiles are not implemented; use "
                                         "apparmor=unconfined");
        } else if ((value = option_value(option, "label"))) {
                if (!streq(value, "disable") && access("/sys/fs/selinux/enforce", F_OK) == 0)
                        return err_plain(err, ENOTSUP,
                                         "SELinux labels are not implemented; use "
                                         "label=disable");
        } else if (!streq(option, "systempaths=unconfined")) {
                return err_plain(err, EINVAL, "invalid --security-opt 2: \"%s\"", option);
        }
        return 0;
}

int security_parse(const struct host_config *host, struct security *ret, char ***warnings,
                   struct err *err)
{
        struct security security = { .seccomp_unconfined = host->privileged };
        int r = parse_capabilities(host, &security, err);
        for (char **option = host->security_opt; r == 0 && option && *option; option++)
                r = parse_option(*option, &security, warnings, err);
        if (r == 0 && security.seccomp_profile) {
                struct oci_seccomp *seccomp = NULL;
                r = security_seccomp(&security, &seccomp, err);
                if (seccomp)
                        json_free(&oci_seccomp_shape, seccomp);
                free(seccomp);
        }
        if (r < 0) {
                security_finish(&security);
                return r;
        }
        *ret = security;
        return 0;
}

void security_finish(struct security *security)
{
        free(security->seccomp_profile);
        strv_free(security->capabilities);
        *security = (struct security){ 0 };
}

int security_seccomp(const struct security *security, struct oci_seccomp **ret, struct err *err)
{
        *ret = NULL;
        if (security->seccomp_unconfined)
                return 0;
        struct oci_seccomp *seccomp = new0(struct oci_seccomp);
        if (!security->seccomp_profile) {
                seccomp_default(security->capabilities, seccomp);
        } else {
                int r = seccomp_profile_parse(security->seccomp_profile,
                                              strlen(security->seccomp_profile),
                                              security->capabilities, seccomp, err);
                if (r < 0) {
                        free(seccomp);
                        return err_wrap(err, "seccomp profile");
                }
        }
        *ret = seccomp;
        return 0;
}
