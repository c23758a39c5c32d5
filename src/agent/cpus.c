#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"

#define CPU "/sys/devices/system/cpu/cpu%u"

/* The first one cannot rest, and has no such file. */
int agent_set_cpus(uint32_t count, struct err *err)
{
        for (uint32_t i = 1;; i++) {
                auto_free char *directory = xasprintf(CPU, i);
                auto_free char *path = xasprintf(CPU "/online", i);
                auto_free char *now = NULL;
                const char *wanted = i < count ? "1" : "0";
                if (access(directory, F_OK) < 0)
                        return 0;
                int r = file_read(AT_FDCWD, path, 16, &now, NULL, err);
                if (r == 0 && now[0] != wanted[0])
                        r = file_put(AT_FDCWD, path, wanted, err);
                if (r < 0)
                        return err_wrap(err, "processor %u", i);
        }
}
