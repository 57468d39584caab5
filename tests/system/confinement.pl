#!/usr/bin/perl
# Run by a unit that has every sandboxing line of pentad.service: tries what the gateway must not be able to do, and what
# it must. Perl, because every Debian has it. Prints a line for each attempt; fails if one went the wrong way.
use strict;
use warnings;
use Fcntl;
use Socket;

my $wrong = 0;
sub attempt {
    my ($what, $wanted, $done) = @_;
    my $right = !!$done == !!$wanted;
    $wrong++ unless $right;
    printf "%-5s %s %s\n", $right ? "ok" : "WRONG", $done ? "can" : "cannot", $what;
}
sub writes { my $done = sysopen(my $file, $_[0], O_WRONLY | O_CREAT, 0600); unlink $_[0] if $done; $done }
sub opens { sysopen(my $file, $_[0], $_[1] // O_RDWR | O_NONBLOCK) }
sub status { my ($line) = grep { /^$_[0]:/ } split /\n/, `cat /proc/self/status`; $line =~ s/^\w+:\s+//; $line }

attempt "write its own state", 1, writes "/var/lib/pentad/attempt";
attempt "write a /tmp of its own", 1, writes "/tmp/attempt";
attempt "see the machine's /tmp", 0, -e "/tmp/of-the-machine";
attempt "write the configuration", 0, writes "/etc/pentad/attempt";
attempt "read the configuration", 1, opens "/etc/pentad/pentad.toml", O_RDONLY;
attempt "read its clients", 1, opens "/etc/pentad/clients.toml", O_RDONLY;
attempt "write programs", 0, writes "/usr/bin/attempt";
attempt "write anywhere in /etc", 0, writes "/etc/attempt";
attempt "read the passwords of the machine", 0, opens "/etc/shadow", O_RDONLY;
attempt "see what is in homes", 0, scalar(() = glob "/root/* /root/.p* /home/*");
attempt "open the serial port", 1, opens "/dev/ttyUSB0";
attempt "open a device that is no serial port", 0, opens "/dev/no-serial-port", O_WRONLY;
attempt "draw random numbers", 1, opens "/dev/urandom", O_RDONLY;
attempt "see processes of others", 0, -e "/proc/1/status";
attempt "see the kernel's settings", 0, -e "/proc/sys/kernel/hostname";
attempt "change the cgroups", 0, mkdir "/sys/fs/cgroup/attempt";
attempt "use raw network packets", 0, socket(my $packets, 17, SOCK_RAW, 0);
# For the addresses of the machine, which an advertised gateway tells the network.
attempt "see the addresses of the machine (netlink)", 1, socket(my $netlink, 16, SOCK_RAW, 0);
# Through systemd, since the call itself is an administrator's.
attempt "ask whether the clock was set", 1, `timedatectl show --property=NTPSynchronized --value` =~ /^(yes|no)$/;
attempt "set the clock", 0, system("date -s 2001-02-03 >/dev/null 2>&1") == 0 || system("timedatectl set-time 2001-02-03 >/dev/null 2>&1") == 0;
attempt "use virtual sockets", 0, socket(my $virtual, 40, SOCK_STREAM, 0);
attempt "use TCP", 1, socket(my $tcp, AF_INET, SOCK_STREAM, 0);
attempt "use local sockets", 1, socket(my $local, AF_UNIX, SOCK_DGRAM, 0);
attempt "make a namespace (unshare)", 0, syscall($^V && `uname -m` =~ /x86_64/ ? 272 : 97, 0x10000000) == 0;
attempt "mount", 0, syscall(`uname -m` =~ /x86_64/ ? 165 : 40, my $none = "none", my $at = "/tmp", my $type = "tmpfs", 0, 0) == 0;
attempt "change its user", 0, do { local $> = 0; $> == 0 };
attempt "make a file that gives rights (setuid)", 0, do { open my $file, ">", "/tmp/setuid"; chmod 04755, "/tmp/setuid" };
attempt "hold any capability", 0, status("CapEff") !~ /^0+$/ || status("CapBnd") !~ /^0+$/;
attempt "gain rights by a program", 0, status("NoNewPrivs") ne "1";
attempt "make every system call", 0, status("Seccomp") ne "2";
attempt "write readable files", 0, do { open my $file, ">", "/tmp/mode"; ((stat "/tmp/mode")[2] & 077) };
attempt "dump its memory", 0, `sh -c 'ulimit -c'` !~ /^0$/;
exit $wrong;
