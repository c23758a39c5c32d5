/* isle-agent: the first process of a guest that runs one container. See agent/agent.h. */
#include <sys/reboot.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/log.h"

int main(void)
{
        struct err err = { 0 };
        log_configure(&(struct log_settings){ .fd = 2, .program = "isle-agent" });
        int r = agent_setup(&err);
        bool boots = r == 0 && agent_only_boots();
        if (r == 0 && !boots)
                r = agent_serve(&err);
        if (!boots)
                log_error("%s", err_text(&err));
        if (getpid() == 1)
                (void)reboot(RB_POWER_OFF);
        return 1;
}
