#include "engine/files.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/str.h"

#define SHORT_ID_LENGTH     12
#define HOST_FILE_MAX_BYTES (1u << 20)

char *files_hostname(const struct instance *instance)
{
        const struct instance_spec *spec = &instance->spec;
        if (!str_empty(spec->config.hostname))
                return xstrdup(spec->config.hostname);
        char name[256];
        if ((streq(spec->host.uts_mode, "host") || streq(spec->host.network_mode, "host")) &&
            gethostname(name, sizeof(name)) == 0)
                return xstrndup(name, sizeof(name) - 1);
        return xstrndup(instance->id, SHORT_ID_LENGTH);
}

char *files_hosts(const struct instance *instance, const char *host_file)
{
        const struct host_config *host = &instance->spec.host;
        auto_buf text = { 0 };
        if (streq(host->network_mode, "host"))
                buf_puts(&text, host_file);
        else
                buf_puts(&text, "127.0.0.1\tlocalhost\n"
                                "::1\tlocalhost ip6-localhost ip6-loopback\n"
                                "fe00::\tip6-localnet\n"
                                "ff00::\tip6-mcastprefix\n"
                                "ff02::1\tip6-allnodes\n"
                                "ff02::2\tip6-allrouters\n");
        if (text.size && text.data[text.size - 1] != '\n')
                buf_putc(&text, '\n');
        if (!streq(host->network_mode, "host")) {
                auto_free char *name = files_hostname(instance);
                buf_printf(&text, "127.0.1.1\t%s\n", name);
        }
        for (char **extra = host->extra_hosts; extra && *extra; extra++) {
                /* "name:address" or "name=address"; an address may have colons. */
                size_t length = strcspn(*extra, ":=");
                if ((*extra)[length])
                        buf_printf(&text, "%s\t%.*s\n", *extra + length + 1, (int)length, *extra);
        }
        return buf_take(&text);
}

char *files_resolv_conf(const struct instance *instance, const char *host_file)
{
        const struct host_config *host = &instance->spec.host;
        bool servers = host->dns && *host->dns, search = host->dns_search && *host->dns_search;
        bool options = host->dns_options && *host->dns_options;
        auto_buf text = { 0 };
        auto_strv lines = str_split(host_file, '\n');
        for (char **line = lines; *line; line++) {
                if (!**line || (servers && str_starts(*line, "nameserver")) ||
                    (search && (str_starts(*line, "search") || str_starts(*line, "domain"))) ||
                    (options && str_starts(*line, "options")))
                        continue;
                buf_printf(&text, "%s\n", *line);
        }
        for (char **server = host->dns; servers && *server; server++)
                buf_printf(&text, "nameserver %s\n", *server);
        if (search) {
                auto_free char *joined = strv_join(host->dns_search, " ");
                buf_printf(&text, "search %s\n", streq(joined, ".") ? "" : joined);
        }
        if (options) {
                auto_free char *joined = strv_join(host->dns_options, " ");
                buf_printf(&text, "options %s\n", joined);
        }
        return buf_take(&text);
}

static char *read_host_file(const char *path)
{
        char *text;
        if (file_read(AT_FDCWD, path, HOST_FILE_MAX_BYTES, &text, NULL, NULL) < 0)
                return xstrdup("");
        return text;
}

/* Written in place: a running instance has the very file bound into it. */
static int write_file(const char *path, const char *text, struct err *err)
{
        auto_fd fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0)
                return err_set(err, errno, "create '%s'", path);
        int r = io_write_full(fd, text, strlen(text));
        return r < 0 ? err_set(err, -r, "write '%s'", path) : 0;
}

int files_write(const struct instance *instance, struct err *err)
{
        auto_free char *host_hosts = read_host_file("/etc/hosts");
        auto_free char *host_resolv = read_host_file("/etc/resolv.conf");
        auto_free char *name = files_hostname(instance);
        auto_free char *hostname = xasprintf("%s\n", name);
        auto_free char *hosts = files_hosts(instance, host_hosts);
        auto_free char *resolv = files_resolv_conf(instance, host_resolv);
        int r = write_file(instance->hostname_path, hostname, err);
        if (r == 0)
                r = write_file(instance->hosts_path, hosts, err);
        if (r == 0)
                r = write_file(instance->resolv_conf_path, resolv, err);
        return r;
}
