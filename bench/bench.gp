# A picture of what conversions cost, from figures as in Documentation/bench.tsv.
# usage: gnuplot -e "figures='FILE'" bench.gp >FILE.svg
set terminal svg size 1180,480 dynamic noenhanced background "white" font "sans-serif,13"
set datafile separator tab
set datafile missing NaN
set style data linespoints
set for [i=1:6] linetype i linewidth 2 pointtype 7 pointsize 0.5 \
	linecolor rgb word("#b3261e #0b5394 #b35900 #3d8fd1 #2e7d32 #555555", i)
set grid linecolor rgb "#dddddd" linetype 1 linewidth 1
set border 0
set tics scale 0
set key at graph 0,-0.26 left top Left reverse samplen 1 textcolor variable
set bmargin 10
set xlabel offset 0,0.5

# A figure has a row for each of the steps, in this order: FIGURE_STEP.
at(figure) = (i = sum [n=1:words(steps)] n * (strcol(1) eq figure . "_" . word(steps, n)), i ? i : NaN)
# What 100 % are.
start(owner) = strcol(1) eq "guest_faults_load_0" ? column(owner) : NaN
stats figures using (start("vm")) nooutput name "vm"
stats figures using (start("guest_memfd")) nooutput name "gmem"
rate(n) = sprintf(" (100 %%: %d,%03d/s)", int(n + 0.5) / 1000, int(n + 0.5) % 1000)

set multiplot layout 1,2

steps = "4K 32K 256K 2M 16M 128M 1G"
per_page(owner) = column(owner) / 8 ** (i - 1)
set title "Cost of a conversion, by size of the range"
set xlabel "size of the range"
set ylabel "guest instructions per page"
set for [n=1:words(steps)] xtics (word(steps, n) n)
set logscale y
set yrange [1:100000]
set ytics ("1" 1, "10" 10, "100" 100, "1,000" 1000, "10,000" 10000, "100,000" 100000)
plot figures using (at("whole_way_to_private")):(per_page("vm")) title "old way: to private, free, guest faults", \
	"" using (at("whole_way_to_private")):(per_page("guest_memfd")) title "in place: to private, guest faults", \
	"" using (at("to_private_untouched")):(per_page("vm")) title "old ioctl by itself, never allocated", \
	"" using (at("to_private_touched")):(per_page("guest_memfd")) title "in place: to private, touched by the host", \
	"" using (at("to_shared_guest_mapped")):(per_page("guest_memfd")) title "in place: to shared, mapped in the guest", \
	"" using (at("to_private_untouched")):(per_page("guest_memfd")) title "in place, never allocated"

steps = "0 25 50 75 100"
set title "Guest faults (KVM_PRE_FAULT_MEMORY) while memory is converted"
set xlabel "time that another processor converts memory of the file"
set ylabel "faults per second, against no conversions"
set for [n=1:words(steps)] xtics (word(steps, n) . " %%" n)
unset logscale y
set yrange [0:120<*]
set ytics 20 format "%g %%"
plot figures using (at("guest_faults_load")):(100 * column("vm") / vm_max) title "old way" . rate(vm_max), \
	"" using (at("guest_faults_load")):(100 * column("guest_memfd") / gmem_max) title "guest_memfd" . rate(gmem_max), \
	80 with lines linetype 6 dashtype 2 title "goal: 80 %"
